from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.number import Number
from raylora.metrics.testing import MetricConformance, row, text_case


class TestNumber(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Number()

    @pytest.fixture
    def case(self):
        return text_case(right=["$1,250.00", "so 4"], wrong=["none", "5"], answers=["1250", "4"])


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("It costs $1,250.00", "1250", True),
        ("The answer is \u22123", "-3", True),
        ("The answer is \u22123", "3", False),
        ("The answer is -3.", "-3", True),
        ("$9{,}500", "9500", True),
        ("\\boxed{9{,}500}", "9500", True),
        ("1e5", "100000", True),
        ("2e5", "1e5", False),
        ("1.5e-3", "0.0015", True),
        ("1/2", "2", False),
        ("1/2", "0.5", True),
        ("0.5", "1/2", True),
        ("1/3", "2/6", True),
        ("50%", "50", True),
        ("72 clips, altogether.", "72", True),
        ("10 000", "10000", True),
        ("-$3", "-3", True),
        ("\u0663", "3", True),
        ("3 m^2", "3", True),
        ("H2O has 3 atoms", "3", True),
        ("3 molecules of H2O", "3", True),
        ("no number", "no number", False),
        ("nan", "nan", False),
        ("", "0", False),
    ],
)
def test_numbers_are_compared_by_value(completion, answer, right):
    assert Number().score([completion], [row(answer)]) == [float(right)]


def test_after_a_mark_the_first_line_counts():
    metric = make_metric("number", {"mark": "####"})
    assert metric.score(["12 #### 7\nand 9", "no mark: 7"], [row("7")] * 2) == [1.0, 1.0]


def test_a_tolerance_is_relative_to_the_answer():
    metric = Number(tolerance=0.01)
    assert metric.score(["0.333", "0.34", "0"], [row("1/3")] * 3) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("options", [{"tolerance": -1}, {"tolerance": float("nan")}, {"mark": ""}])
def test_a_wrong_option_is_refused_by_name(options):
    with pytest.raises(UserError, match=rf"number\.{next(iter(options))}: "):
        make_metric("number", options)


def test_any_accepted_answer_counts():
    accepted = {**row("1"), "metadata": '{"references": ["1", "one half, 0.5"]}'}
    assert Number().score(["so 0.5", "1", "2"], [accepted] * 3) == [1.0, 1.0, 0.0]
