from __future__ import annotations

import errno
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raylora import __version__
from trainables.journal import VERSION, Ending, Journal, trial_key
from trainables.store import mark, store_at

# A journal from each release, by its name.
RELEASES = sorted((Path(__file__).resolve().parents[1] / "assets" / "journals").glob("*.jsonl"))


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
    assert Journal(tmp_path).rows()[0]["loss"] is None


def test_a_failed_trial_is_replayed_with_the_worst_value_and_the_word_that_it_failed() -> None:
    ending = Ending("a", {}, message="rank 512 is larger", kind="infeasible")
    assert ending.replay({"accuracy": 0.0}) == {"accuracy": 0.0, "failed": True, "done": True, "replayed": True}


def test_a_failure_of_an_earlier_release_reads_as_failed(tmp_path) -> None:
    Journal(tmp_path).append("error", "a", config={}, message="no room")
    assert Journal(tmp_path).concluded()["a"].kind == "failed"


def test_a_trial_that_is_over_reports_what_it_did_and_that_it_is_done() -> None:
    replayed = Ending("a", {}, {"accuracy": 1, "done": False}, stopped=True).replay({})
    assert replayed == {"accuracy": 1, "done": True, "stopped": True, "replayed": True}


def test_what_is_booked_is_what_is_read(tmp_path) -> None:
    journal, metrics = Journal(tmp_path), {"accuracy": 0.5, "accuracy_se": 0.125, "of_a_variant": 3}
    booked = journal.finish("a", {"rank": 8}, metrics), journal.fail("b", {"rank": 9}, "no room", "infeasible")
    assert list(journal.concluded().values()) == list(booked)


def test_the_last_report_of_a_trial_is_kept_apart_from_its_end(tmp_path) -> None:
    journal = Journal(tmp_path)
    for accuracy in (0.25, 0.5):
        journal.report("a", {"accuracy": accuracy, "accuracy_se": 0.1})
    assert journal.last_report("a") == {"accuracy": 0.5, "accuracy_se": 0.1}
    assert journal.last_report("b") == {} and journal.concluded() == {}


def test_a_file_says_its_version_once(tmp_path) -> None:
    for key in "ab":
        Journal(tmp_path).append("start", key, config={})
    first, *others = map(json.loads, (tmp_path / "trials.jsonl").read_text().splitlines())
    assert first == {"event": "journal", "version": VERSION}
    assert [row["key"] for row in others] == ["a", "b"]


def test_a_file_without_a_version_is_read(tmp_path) -> None:
    (tmp_path / "trials.jsonl").write_text('{"event":"finish","key":"a","time":1,"config":{"rank":8},"accuracy":0.5}\n')
    assert Journal(tmp_path).concluded()["a"] == Ending("a", {"rank": 8}, {"accuracy": 0.5}, time=1)


def test_a_file_of_a_later_version_is_refused_in_one_line(tmp_path) -> None:
    (tmp_path / "trials.jsonl").write_text(json.dumps({"event": "journal", "version": VERSION + 1}) + "\n")
    with pytest.raises(ValueError, match="upgrade raylora") as caught:
        Journal(tmp_path).concluded()
    assert "\n" not in str(caught.value)


def test_a_line_that_the_system_takes_in_parts_is_whole(tmp_path, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:7]))
    Journal(tmp_path).append("finish", "a", config={"rank": 8})
    assert [row["config"] for row in Journal(tmp_path).rows()] == [{"rank": 8}]


def test_a_line_that_the_disk_has_no_room_for_is_an_error_and_leaves_no_part_of_itself(tmp_path, monkeypatch) -> None:
    journal, write, room = Journal(tmp_path), os.write, [20]
    journal.append("start", "a", config={})
    before = journal.path.read_bytes()

    def filling(descriptor, data):
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data)[: room.pop()])

    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(os, "write", filling)
    with pytest.raises(OSError, match="No space left"):
        journal.append("finish", "a", config={})
    assert sum(waited) == 30
    assert journal.path.read_bytes() == before


def test_a_line_waits_for_room_on_the_disk(tmp_path, monkeypatch) -> None:
    journal, write, full = Journal(tmp_path), os.write, [True, True]

    def filling(descriptor, data):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", filling)
    monkeypatch.setattr(time, "sleep", lambda seconds: full.pop())
    journal.append("finish", "a", config={})
    assert [row["key"] for row in journal.rows()] == ["a"]


def test_there_is_a_journal_of_this_release() -> None:
    assert __version__ in [file.stem for file in RELEASES]


@pytest.mark.parametrize("file", RELEASES, ids=lambda file: file.stem)
def test_a_journal_of_a_release_opens_with_all_its_trials(tmp_path, file) -> None:
    shutil.copy(file, tmp_path / "trials.jsonl")
    journal = Journal(tmp_path)
    ends = journal.concluded()
    assert list(journal.started()) == list(ends) and len(ends) == 6
    assert all(trial_key(end.config) == key and end.metrics["validation_loss"] > 0 for key, end in ends.items())
    assert {row["label"] for row in journal.rows() if row["event"] == "final"} == {"base", "default-0", "best-0"}


def test_journal_in_a_store_is_one_for_all_working_folders_and_keeps_no_file(tmp_path) -> None:
    for name in ("one", "two"):
        mark(tmp_path / name, f"file://{tmp_path}/store")
    Journal(tmp_path / "one").begin()
    Journal(tmp_path / "one").append("start", "a", config={"rank": 2})
    Journal(tmp_path / "two").finish("a", {"rank": 2}, {"accuracy": 0.5})
    assert [row["event"] for row in Journal(tmp_path / "one").rows()] == ["start", "finish"]
    assert Journal(tmp_path / "one").concluded()["a"].metrics == {"accuracy": 0.5}
    assert not Journal(tmp_path / "one").path.exists()


def test_journal_in_a_store_of_a_later_version_is_not_read(tmp_path) -> None:
    mark(tmp_path / "run", f"file://{tmp_path}/later")
    later = {"event": "journal", "version": VERSION + 1}
    store_at(f"file://{tmp_path}/later").add_record("journal", later, json.dumps(later).encode())
    with pytest.raises(ValueError, match="upgrade raylora"):
        Journal(tmp_path / "run").check_version()
