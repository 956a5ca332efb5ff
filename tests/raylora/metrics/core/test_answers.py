from __future__ import annotations

import pytest

from raylora.metrics.core.answers import boxed, final_answer, plain_number, spelt


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (r"\boxed{1} and \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{3}", "3"),
        (r"$\boxed 5$", "5"),
        (r"\boxed{1} and \boxed{2", "1"),
        ("nothing", None),
    ],
)
def test_the_last_box_that_closes_is_read(text, held):
    assert boxed(text) == held


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 5. It is right.", "5"),
        ("answer: $x$ or so", "x"),
        ("The answer is 3.5", "3.5"),
        ("**Answer:** 7", "7"),
        ("**Answer: 7**", "7"),
        ("2 ** 3", "2 ** 3"),
        ("first $a$, then $b$", "b"),
        ("a\nb", "b"),
        ("", ""),
    ],
)
def test_without_a_box_the_stated_answer_counts_then_the_last_formula_then_the_last_line(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        (r"1,\!000", "1000"),
        (r"5\text{ cm}^2", "5"),
        (r"45^{\circ}", "45"),
        (r"\text{Tuesday}", "Tuesday"),
        (r"x = 5", "5"),
        (r"a = b = c", "a = b = c"),
        (r"\left(1,2\right)", "(1,2)"),
        (r"\$18.90", "18.90"),
        (r"18\,\text{m}^2", "18"),
        ("3\u221a2", r"3\sqrt{2}"),
        ("\u221a(x+1)", r"\sqrt{x+1}"),
        (r"0.1\overline{6}", r"\frac{15}{90}"),
        (r"\varnothing", r"\emptyset"),
    ],
)
def test_what_is_no_part_of_the_answer_goes(text, spelling):
    assert spelt(text) == spelling


def test_plain_numbers_may_have_an_exponent():
    assert (plain_number("1.5e3"), plain_number("2e"), plain_number("x")) == (1500, None, None)
