"""What a run tells its trackers, made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raylora.run.trackers import Tracker

SPEC = {"model": "tiny", "task": {"name": "instruct", "path": "rows.jsonl"}, "seed": 0, "name": None}
TRIAL = {
    "event": "finish", "key": "00aa", "time": 2.0, "config": {"variant": "lora", "rank": 4, "learning_rate": 1e-3},
    "status": "finished", "stopped": False, "samples": 32, "accuracy": 0.5, "loss": 1.0, "diverged": False,
    "reports": [
        {"event": "report", "key": "00aa", "samples": 16, "accuracy": 0.25, "loss": 2.0},
        {"event": "finish", "key": "00aa", "samples": 32, "accuracy": 0.5, "loss": 1.0},
    ],
}  # fmt: skip
FAILED = {
    "event": "error", "key": "00bb", "time": 3.0, "config": {"variant": "lora", "rank": 8, "learning_rate": 1e-3},
    "status": "failed", "message": "out of memory", "reports": [],
}  # fmt: skip
SUMMARY = {
    "metric": "accuracy", "mode": "max", "trials": 2, "base": {"test": 0.1},
    "default": {"config": {"rank": 8}, "validation": 0.3, "test": 0.2},
    "best": {"config": {"rank": 4}, "validation": 0.5, "test": 0.4, "test_se": 0.1},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of a run that has come to its end."""
    run = tmp_path / "runs" / "sums"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter_config.json").write_text("{}")
    (run / "summary.json").write_text(json.dumps(SUMMARY))
    (run / "report.html").write_text("<!doctype html>")
    return run


@pytest.fixture
def tell(folder):
    """Tell a tracker of a whole run that was interrupted between its trials; `make` makes it for either part."""

    def told(make) -> Tracker:
        tracker = make()
        tracker.start(folder, SPEC)
        tracker.trial(TRIAL)
        again = make()
        again.start(folder, SPEC)
        again.trial(FAILED)
        again.finish(SUMMARY)
        return again

    return told
