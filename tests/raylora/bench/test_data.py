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


def test_the_folder_is_made_with_those_above_it(tmp_path, monkeypatch) -> None:
    figures = dict.fromkeys(("seconds", "data_s", "silence_s", "driver_mb", "host_mb", "tokens"), 1.0)
    for name, found in (("_make_model", None), ("_bare", figures), ("_tune", figures)):
        monkeypatch.setattr(data, name, lambda *given, found=found: found)
    assert data.bench_data(rows=2, words=2, folder=tmp_path / "a" / "b", quiet=True)["rows"] == 2.0
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--folder .*file: File exists; name a place"):
        data.bench_data(folder=tmp_path / "file")
