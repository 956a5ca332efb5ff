from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raylora.run.trackers import TRACKERS, Tracker


class Told(Tracker):
    name = "told"

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def start(self, folder: Path, spec: Mapping[str, Any]) -> None:
        self.calls.append(("start", (folder, spec)))

    def trial(self, row: Mapping[str, Any]) -> None:
        self.calls.append(("trial", row))

    def finish(self, summary: Mapping[str, Any]) -> None:
        self.calls.append(("finish", summary))


def test_a_tracker_is_a_class_with_the_three_calls(tmp_path: Path) -> None:
    tracker = Told()
    tracker.start(tmp_path, {"model": "tiny"})
    tracker.trial({"key": "a", "config": {"rank": 2}, "accuracy": 0.5})
    tracker.finish({"metric": "accuracy"})
    assert [name for name, _ in tracker.calls] == ["start", "trial", "finish"]


@pytest.mark.parametrize("missing", ["start", "trial", "finish"])
def test_a_class_without_one_of_the_calls_is_no_tracker(missing: str) -> None:
    calls = {name: lambda self, *told: None for name in ("start", "trial", "finish") if name != missing}
    with pytest.raises(TypeError, match=missing):
        type("Half", (Tracker,), calls)()


def test_machinery_is_no_tracker() -> None:
    assert "base" not in TRACKERS
