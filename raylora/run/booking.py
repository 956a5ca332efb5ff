"""Tune's callback that books in the journal what no host could: trials that were stopped or that failed outside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune import Callback

from trainables.journal import Journal, canonical, trial_key


class RunCallback(Callback):
    """Journals trials that a scheduler stopped or that failed outside training, and reports progress."""

    def __init__(self, run_dir: str, metric: str, mode: str, total: int, show: Any = None) -> None:
        self.journal = Journal(run_dir)
        self.metric, self.mode, self.total, self.show = metric, mode, total, show
        self.count, self.best = 0, None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "show": None}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial_key(trial.config)
        row = self.journal.concluded().get(key)
        if row is None:
            result = {k: v for k, v in (trial.last_result or {}).items() if k in REPORTED or k == self.metric}
            row = self.journal.append("finish", key, config=trial.config, stopped=True, **result)
        self._progress(trial, row)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial_key(trial.config)
        row = self.journal.concluded().get(key)
        if row is None:
            lines = str(trial.error_file and Path(trial.error_file).read_text()).strip().splitlines()
            message = lines[-1] if lines else "unknown error"
            row = self.journal.append("error", key, config=trial.config, message=message)
        self._progress(trial, row)

    def _progress(self, trial: Any, row: Mapping[str, Any]) -> None:
        self.count += 1
        value = row.get(self.metric)
        if row["event"] == "finish" and value is not None:
            better = self.best is None or (value > self.best if self.mode == "max" else value < self.best)
            self.best = value if better else self.best
        if self.show is not None:
            replayed = bool((trial.last_result or {}).get("replayed"))
            self.show(self.count, self.total, canonical(trial.config), row, self.best, replayed)


REPORTED = frozenset(
    {
        "loss",
        "validation_loss",
        "samples",
        "tokens",
        "step",
        "step_time_s",
        "train_s",
        "eval_s",
        "attach_s",
        "peak_memory_gb",
        "trainable_parameters",
        "effective_rank",
        "diverged",
        "done",
    }
)
