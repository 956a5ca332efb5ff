from __future__ import annotations

from decimal import Decimal

import pytest

from raylora.metrics.core.numbers import final_number, last_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("$1,250.00 each", "1250"),
        ("5-3", "3"),
        ("5 - 3", "3"),
        ("[1,2]-3", "3"),
        ("it is -3", "-3"),
        ("$-3", "-3"),
        ("-$3", "-3"),
        ("-\\$3", "-3"),
        ("1, 2,3", "3"),
        ("0.5.", "0.5"),
        (".5", "0.5"),
        ("2½", "2.5"),
        ("2 1/2", "2.5"),
        ("5 16/2", "8"),
        ("12/25/2024", "2024"),
        ("x^2 = 4", "4"),
        ("2^10", "1024"),
        ("1.5 \\times 10^{-3}", "0.0015"),
        ("3\u00d710^5", "300000"),
        ("\\frac{-1}{2}", "-0.5"),
        ("-\\dfrac{3}{4}", "-0.75"),
        ("2\\frac12", "2.5"),
        ("H2O", "2"),
        ("答案是5", "5"),
        ("__5__", "5"),
        ("1,\\!000", "1000"),
        ("1 000 000.5", "1000000.5"),
        ("paid Rs500", "500"),
        ("50\\%", "50"),
        ("the 3rd", "3"),
        ("2e5x", "2"),
        ("1.234,5", "1234.5"),
        ("1,00,000.5", "100000.5"),
        ("1_000", "1000"),
        ("12,34,56", "56"),
        ("-1.234.567", "-1234567"),
        ("(3.142,2.718)", "2.718"),
        ("0.333,5", "5"),
        ("1.234", "1.234"),
    ],
)
def test_the_last_number_is_read_as_people_and_latex_write_it(text, number):
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "none", "inf", "9" * 500, "1/0"])
def test_what_is_no_number_has_none(text):
    assert last_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1 " * 20_000, 1),
        ("1,000 " * 8_000, 1000),
        ("1/" * 20_000, 1),
        ("(" * 40_000, None),
        ("\\frac{" * 8_000, None),
    ],
)
def test_text_without_an_end_is_read_too(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7\n#### 7", "7"),
        ("#### $1,234.00", "1234"),
        ("#### 7\nNext question: 12", "7"),
        ("#### 7 #### 8", "8"),
        ("the answer is 18.", "18"),
        ("so 9 ####", "9"),
        ("#### -2.5", "-2.5"),
    ],
)
def test_the_final_number_is_the_one_after_the_mark_or_else_the_last(text, number):
    assert final_number(text, "####") == Decimal(number)
