"""The suites that raylora ships, on this package's classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from raylora_example.backwards import BackwardsTask
from raylora_example.diary import Diary
from raylora_example.farthest import FarthestSearch
from raylora_example.letters import Letters
from raylora_example.slow_a import SlowA

from raylora.metrics.testing import Case, MetricConformance, text_case
from searchers.testing import SearcherConformance
from trainables.variants.testing import VariantConformance


class TestSlowA(VariantConformance):
    variant = SlowA


class TestFarthestSearch(SearcherConformance):
    searcher = FarthestSearch


class TestLetters(MetricConformance):
    @pytest.fixture
    def metric(self) -> Letters:
        return Letters()

    @pytest.fixture
    def case(self) -> Case:
        return text_case(right=["abcd", "xyz"], wrong=["zzzz", "q"], answers=["abcd", "xyz"])


def test_the_test_split_shares_no_word_with_train() -> None:
    splits = BackwardsTask(letters=2, train_rows=300, test_rows=100).splits()
    train, test = ({row["prompt"] for row in splits[name]()} for name in ("train", "test"))
    assert (len(train), len(test)) == (300, 100) and not train & test


def test_a_resumed_run_goes_on_with_its_diary(tmp_path: Path) -> None:
    for _ in range(2):
        diary = Diary()
        diary.start(tmp_path, {"model": "tiny", "task": {"name": "backwards"}})
        diary.trial({"key": "k", "config": {"rank": 2}, "letters": 0.5})
    diary.finish({"trials": 2})
    assert (tmp_path / "diary.txt").read_text().splitlines() == [*["backwards on tiny", '{"rank": 2}'] * 2, "2 trials"]
