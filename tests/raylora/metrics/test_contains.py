from __future__ import annotations

import pytest

from raylora.metrics.contains import Contains
from raylora.metrics.testing import MetricConformance, row, text_case


class TestContains(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Contains()

    @pytest.fixture
    def case(self):
        return text_case(right=["It is Paris.", "4!"], wrong=["Parisian", "45"], answers=["Paris", "4"])


def test_only_whole_words_count():
    assert Contains().score(["answer21", "answer2, I say"], [row("answer2")] * 2) == [0.0, 1.0]


def test_an_empty_answer_is_in_no_completion():
    assert Contains().score(["anything", ""], [row(" ")] * 2) == [0.0, 0.0]


def test_any_accepted_answer_counts():
    accepted = {**row("a"), "metadata": '{"references": ["a", "A 0"]}'}
    assert Contains().score(["it is a 0", "it is b"], [accepted] * 2) == [1.0, 0.0]
