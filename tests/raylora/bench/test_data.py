from __future__ import annotations

import json
import os

import pytest

from raylora.bench import data
from raylora.errors import UserError


def test_rows_have_as_many_words_as_were_asked_for_and_no_two_are_alike(tmp_path) -> None:
    phrases = [" ".join([f"w{n}"] * 10) for n in range(50)]
    data._write_rows(tmp_path / "rows.jsonl", 30, 21, phrases)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {(len(row["prompt"].split()), len(row["response"].split())) for row in rows} == {(7, 14)}
    assert len({row["prompt"] for row in rows}) == 30


def test_a_row_of_one_word_is_refused() -> None:
    with pytest.raises(UserError, match="--words: 1; allowed: at least 2"):
        data.bench_data(words=1)


def test_peak_memory_is_that_of_the_process() -> None:
    mine = data._peak_mb(os.getpid())
    assert mine == 0.0 or mine > 10  # where there is no /proc nothing is told
    assert data._peak_mb(2**30) == 0.0


def test_processes_without_a_model_are_no_hosts() -> None:
    assert os.getpid() not in set(data._hosts(os.getppid()))
