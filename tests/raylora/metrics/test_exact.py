from __future__ import annotations

import pytest

from raylora.metrics.exact import Exact
from raylora.metrics.testing import MetricConformance, row, text_case


class TestExact(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Exact()

    @pytest.fixture
    def case(self):
        return text_case(right=["Paris.", "4"], wrong=["Rome", "5"], answers=["Paris", "4"])


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("Paris.", "paris", True),
        ("1,000", "1000", False),
        ("**Paris**", "Paris", True),
        ("Paris\n\nExplanation", "Paris", False),
        ("\u201cParis\u201d", "Paris", True),
        ("", "Paris", False),
        ("", "!", False),
        ("!", "!", True),
        ("the  correct\nanswer is true", "The correct answer is true", True),
    ],
)
def test_case_spacing_and_what_stands_around_do_not_count(completion, answer, right):
    assert Exact().score([completion], [row(answer)]) == [float(right)]


def test_the_whole_reference_response_is_right_too():
    assert Exact().score(["The answer is TRUE"], [row("true", "the answer is true")]) == [1.0]


def test_any_accepted_answer_counts():
    accepted = {**row("a"), "metadata": '{"references": ["a", "A 0"]}'}
    assert Exact().score(["a", "a 0.", "b"], [accepted] * 3) == [1.0, 1.0, 0.0]
