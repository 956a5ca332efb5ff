"""What a host is doing at this moment, in a small file of its own: who watches a run reads it and disturbs nobody."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from trainables.files import replace_text
from trainables.journal import Knobs

FOLDER = "live"
# Seconds between two writings of a file.
EVERY_S = 1.0

Phase = Literal["training", "scoring", "idle"]


class Live(TypedDict):
    """A trial, or a recipe of the final stage, in progress.

    `name`: of the recipe (`best-0`), "" for a trial. `samples`, `of`: rows seen and to see. `loss`: of the last step.
    `left_s`: seconds of training left, None before the first step. `time`: of writing, seconds since the epoch.
    """

    name: str
    key: str
    knobs: dict[str, Any]
    phase: Phase
    samples: int
    of: int
    loss: float | None
    left_s: float | None
    time: float


class Beacon:
    """Writes a host's file, at most once a second unless the phase changes.

    Args:
        run_dir: the run's folder. where: the host's name; "" writes nothing.
    """

    def __init__(self, run_dir: str | Path, where: str) -> None:
        self.path = Path(run_dir) / FOLDER / f"{where}.json" if where else None
        self._phase: Phase | None = None
        self._written = self._begun = 0.0
        self._first = 0

    def begin(self, samples: int = 0) -> None:
        """A trial begins, or goes on from `samples`."""
        self._phase, self._begun, self._first = None, time.monotonic(), samples

    def show(
        self, phase: Phase, samples: int, of: int, *, loss: float | None, key: str, knobs: Knobs, name: str = ""
    ) -> None:
        """Say where the trial stands."""
        now = time.monotonic()
        if self.path is None or (phase == self._phase and now - self._written < EVERY_S):
            return
        self._phase, self._written = phase, now
        done = samples - self._first
        left = (now - self._begun) / done * (of - samples) if done > 0 else None
        told: Live = {
            "name": name,
            "key": key,
            "knobs": dict(knobs),
            "phase": phase,
            "samples": samples,
            "of": of,
            "loss": loss,
            "left_s": left,
            "time": time.time(),
        }
        # Who watches may miss a line; a trial must not fail for it.
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(exist_ok=True)
            replace_text(self.path, json.dumps(told, default=str))

    def end(self) -> None:
        """Nothing runs here any more."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def read_live(run_dir: str | Path) -> dict[str, Live]:
    """Host -> what it does; hosts at rest are not there."""
    found: dict[str, Live] = {}
    for file in sorted((Path(run_dir) / FOLDER).glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            told: Mapping[str, object] = json.loads(file.read_text())
            found[file.stem] = Live(**told)  # type: ignore[typeddict-item]
    return found
