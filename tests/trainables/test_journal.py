from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainables.journal import Journal, journal_metrics, trial_key


def test_key_ignores_order_and_spelling_of_numbers() -> None:
    assert trial_key({"rank": 8, "alpha_ratio": 2.0}) == trial_key({"alpha_ratio": 2, "rank": 8.0})
    assert trial_key({"rank": 8}) != trial_key({"rank": 16})


def test_concurrent_writers_lose_no_line(tmp_path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: Journal(tmp_path).append("start", str(i), config={"rank": i}), range(64)))
    assert sorted(int(row["key"]) for row in Journal(tmp_path).rows()) == list(range(64))


def test_torn_line_is_passed_over_and_the_next_one_survives(tmp_path) -> None:
    journal = Journal(tmp_path)
    journal.append("start", "a", config={})
    with journal.path.open("a") as file:
        file.write('{"event": "finish", "key": "a", "accur')
    journal.append("finish", "b", accuracy=0.5)
    assert [(row["event"], row["key"]) for row in journal.rows()] == [("start", "a"), ("finish", "b")]
    assert list(journal.concluded()) == ["b"]


def test_non_finite_numbers_become_null(tmp_path) -> None:
    Journal(tmp_path).append("finish", "a", loss=float("nan"))
    assert json.loads((tmp_path / "trials.jsonl").read_text())["loss"] is None


def test_error_line_raises_instead_of_pretending_a_result() -> None:
    with pytest.raises(RuntimeError, match="rank 512"):
        journal_metrics({"event": "error", "message": "rank 512 is larger"})
    assert journal_metrics({"event": "finish", "key": "a", "time": 0, "accuracy": 1})["replayed"]
