from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raylora.run.booking import RunCallback
from trainables.journal import Ending, Journal, trial_key

CONFIG = {"variant": "lora", "rank": 4}
REPORT = {"accuracy": 0.5, "accuracy_se": 0.1, "samples": 8, "optimizer_mb": 0.25, "of_a_variant": 3, "done": False}


def trial(**more: Any) -> Any:
    return SimpleNamespace(**{"config": CONFIG, "last_result": {"accuracy": 0.5, "pid": 7}, "error_file": None, **more})


@pytest.fixture
def shown() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def callback(tmp_path, shown) -> RunCallback:
    return RunCallback(str(tmp_path), "accuracy", "max", 2, show=lambda *line: shown.append(line))


def ending(folder) -> Ending:
    return Journal(folder).concluded()[trial_key(CONFIG)]


def test_a_stopped_trial_keeps_all_of_its_last_report(callback, tmp_path) -> None:
    journal = Journal(tmp_path)
    journal.report(trial_key(CONFIG), {**REPORT, "accuracy": 0.25, "samples": 4})
    journal.report("another", {"accuracy": 0.9})
    journal.report(trial_key(CONFIG), REPORT)
    callback.on_trial_complete(0, [], trial())
    assert ending(tmp_path).stopped
    assert dict(ending(tmp_path).metrics) == REPORT


def test_a_trial_that_its_host_booked_is_not_booked_again(callback, tmp_path) -> None:
    Journal(tmp_path).finish(trial_key(CONFIG), CONFIG, {"accuracy": 0.75})
    callback.on_trial_complete(0, [], trial())
    assert [row["event"] for row in Journal(tmp_path).rows()] == ["finish"]


def test_a_failure_outside_training_is_booked_with_its_last_line(callback, tmp_path) -> None:
    log = tmp_path / "error.txt"
    log.write_text("Traceback\n  ...\nOSError: no space left\n")
    callback.on_trial_error(0, [], trial(error_file=str(log)))
    assert ending(tmp_path).message == "OSError: no space left"


def test_progress_is_told_with_the_best_value_so_far(callback, tmp_path, shown) -> None:
    for number, value in enumerate((0.5, 0.25)):
        config = {**CONFIG, "rank": number}
        Journal(tmp_path).finish(trial_key(config), config, {"accuracy": value})
        callback.on_trial_complete(0, [], trial(config=config))
    assert [(count, total, best) for count, total, _, _, best, _ in shown] == [(1, 2, 0.5), (2, 2, 0.5)]


def test_the_callback_travels_without_its_display(callback) -> None:
    assert callback.__getstate__()["show"] is None
