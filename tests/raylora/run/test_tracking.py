from __future__ import annotations

import time

import pytest

from raylora.errors import UserError
from raylora.run.trackers import TRACKERS, Tracker
from raylora.run.tracking import Tracking, make_trackers, tracked_row
from raylora.spec import from_dict
from trainables.journal import Journal


def spec_of(*track):
    return from_dict({"model": "tiny", "task": {"name": "instruct", "path": "rows.jsonl"}, "track": list(track)})


class Told(Tracker):
    name = "told"

    def __init__(self) -> None:
        self.calls = []

    def start(self, folder, spec) -> None:
        self.calls.append(("start", spec["model"]))

    def trial(self, row) -> None:
        self.calls.append(("trial", row["key"]))

    def finish(self, summary) -> None:
        self.calls.append(("finish", summary["trials"]))


class Down(Told):
    name = "down"

    def trial(self, row) -> None:
        super().trial(row)
        raise ConnectionError("no route to host\nmore")


class Slow(Told):
    name = "slow"

    def trial(self, row) -> None:
        time.sleep(30)


def follow(*trackers, patience_s: float = 5.0) -> list[str]:
    said: list[str] = []
    tracking = Tracking(list(trackers), None, spec_of(), said.append)  # type: ignore[arg-type]
    tracking.trial({"key": "a"})
    tracking.trial({"key": "b"})
    tracking.finish({"trials": 2})
    tracking.close(patience_s)
    return said


def test_a_tracker_is_told_in_order() -> None:
    tracker = Told()
    assert follow(tracker) == []
    assert tracker.calls == [("start", "tiny"), ("trial", "a"), ("trial", "b"), ("finish", 2)]


def test_one_that_is_down_is_one_line_and_hurts_neither_the_run_nor_the_others() -> None:
    down, told = Down(), Told()
    assert follow(down, told) == ["tracker down: trial failed (no route to host); the run goes on without it"]
    assert down.calls[-1] == ("trial", "a") and len(told.calls) == 4


def test_one_that_does_not_answer_holds_nobody_up() -> None:
    started = time.monotonic()
    assert follow(Slow(), patience_s=0.2) == ["tracker slow: not done after 0 s; left behind"]
    assert time.monotonic() - started < 10


def test_options_reach_the_tracker() -> None:
    (tracker,) = make_trackers(spec_of({"tensorboard": {"folder": "board"}}))
    assert tracker.place == "board"


@pytest.mark.parametrize(
    ("entry", "told"),
    [("tensorbord", "'tensorboard'"), ({"tensorboard": {"folders": "x"}}, "track.tensorboard.folders")],
)
def test_a_name_or_option_that_is_none_is_one_line(entry, told) -> None:
    with pytest.raises(UserError, match=told):
        make_trackers(spec_of(entry))


def test_a_tracker_that_is_not_installed_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(TRACKERS["wandb"], "package", "no_such_package")
    with pytest.raises(UserError, match=r"pip install 'raylora\[trackers\]'"):
        make_trackers(spec_of("wandb"))


def test_a_trials_row_has_its_reports_and_how_it_ended(tmp_path) -> None:
    journal = Journal(tmp_path)
    journal.report("a", {"samples": 8, "accuracy": 0.1})
    journal.finish("a", {"rank": 2}, {"samples": 16, "accuracy": 0.2}, stopped=True)
    journal.fail("b", {"rank": 4}, "broken")
    row, failed = tracked_row(tmp_path, "a"), tracked_row(tmp_path, "b")
    assert [report["samples"] for report in row["reports"]] == [8, 16] and row["status"] == "stopped"
    assert failed["status"] == "failed" and failed["reports"] == [] and tracked_row(tmp_path, "c") is None


def test_a_run_tells_its_trackers_of_every_trial(finished_run) -> None:
    board = finished_run.folder / "tensorboard"
    keys = set(Journal(finished_run.folder).concluded())
    assert {folder.name for folder in board.iterdir()} == {"search", *(f"trial-{key}" for key in keys)}


def test_what_trackers_go_on_with_stays_when_a_run_is_taken_up_again(tmp_path) -> None:
    from raylora.run.folder import archive_attempt

    for name in ("tracker-mlflow.json", "experiment_state.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "tensorboard").mkdir()
    archive_attempt(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tracker-mlflow.json", "tensorboard", "attempts"}
