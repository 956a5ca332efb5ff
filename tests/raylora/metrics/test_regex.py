from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.regex import Regex
from raylora.metrics.testing import MetricConformance, row, text_case


class TestRegex(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Regex(pattern=r"= (\d+)", compare=True)

    @pytest.fixture
    def case(self):
        return text_case(right=["2 + 2 = 4", "= 5"], wrong=["4", "= 6"], answers=["4", "5"])


@pytest.mark.parametrize(
    ("options", "completion", "right"),
    [
        ({"pattern": r"\d{4}"}, "in 2024", True),
        ({"pattern": r"\d{4}", "full": True}, "in 2024", False),
        ({"pattern": r"^{answer}$"}, "a+b", True),
        ({"pattern": r"^{answer}$"}, "aab", False),
        ({"pattern": r"(?i)A\+B", "compare": True}, "so a+b ", True),
        ({"pattern": r"x"}, "", False),
        ({"pattern": r"[{answer}]", "full": True}, "+", True),
    ],
)
def test_a_completion_matches_as_the_options_say(options, completion, right):
    assert make_metric("regex", options).score([completion], [row("a+b")]) == [float(right)]


def test_a_match_that_takes_for_ever_is_none():
    assert Regex(pattern=r"(a|aa|b)*\1c").score(["aab" * 60], [row("")]) == [0.0]


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"regex\.pattern: '\(' is no regular expression: "):
        make_metric("regex", {"pattern": "("})


def test_a_pattern_is_needed():
    with pytest.raises(UserError, match=r"task\.metrics\.pattern: missing; regex needs it"):
        make_metric("regex")


def test_an_answer_that_makes_the_pattern_none_is_named():
    metric = make_metric("regex", {"pattern": "[{answer}]"})
    with pytest.raises(UserError, match=r"regex\.pattern: .* is no regular expression, with '' for \{answer\}: "):
        metric.score(["a"], [row("")])
