"""Tune's callback that tells the trackers of a run what its trials came to."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from raylora.run.tracking import Tracking, tracked_row
from trainables.journal import trial_key


class TrackingCallback(Callback):
    """Tells the trackers of each trial that has ended, once the journal has it (behind `RunCallback`)."""

    def __init__(self, run_dir: str, tracking: Tracking) -> None:
        self.run_dir = run_dir
        self.tracking: Tracking | None = tracking

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "tracking": None}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(trial)

    def on_trial_error(self, iteration: int, trials: list[object], trial: object, **info: object) -> None:
        self._tell(trial)

    def _tell(self, trial: Any) -> None:
        # What an earlier attempt finished was told then.
        if self.tracking is None or (trial.last_result or {}).get("replayed"):
            return
        row = tracked_row(self.run_dir, trial_key(trial.config))
        if row is not None:
            self.tracking.trial(row)
