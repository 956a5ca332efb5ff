"""Tune's callback that books in the journal what no host could: trials that were stopped or that failed outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from raylora.progress import describe
from trainables.journal import Ending, Journal, Knobs, canonical, trial_key

Say = Callable[[str], None]
Show = Callable[[int, int, Knobs, Ending, float | None, bool], None]
"""How many trials are over, of how many; the configuration, how it ended, the best value; whether it was replayed."""


class RunCallback(Callback):
    """Journals trials that a scheduler stopped or that failed outside training, and reports progress."""

    def __init__(
        self, run_dir: str, metric: str, mode: str, total: int, show: Show | None = None, say: Say | None = None
    ) -> None:
        self.journal = Journal(run_dir)
        self.metric, self.mode, self.total, self.show, self.say = metric, mode, total, show, say
        self.count = self.started = 0
        self.best: float | None = None
        self.recipe: Knobs | None = None
        self.values: dict[str, float] = {}
        self._begun: dict[str, int] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "show": None, "say": None}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial_key(trial.config)
        again = key in self._begun
        self.started += not again
        number = self._begun.setdefault(key, self.started)
        if self.say is not None and key not in self.journal.concluded():
            self.say(f"trial {number}: {describe(canonical(trial.config))} {'goes on' if again else 'started'}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial_key(trial.config)
        end = self.journal.concluded().get(key)
        if end is None and (last := trial.last_result or {}).get("failed"):
            end = self.journal.fail(key, trial.config, str(last.get("message")), str(last.get("kind", "failed")))
        if end is None:
            end = self.journal.finish(key, trial.config, self.journal.last_report(key), stopped=True)
        self._progress(trial, end)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial_key(trial.config)
        end = self.journal.concluded().get(key)
        if end is None:
            lines = str(trial.error_file and Path(trial.error_file).read_text()).strip().splitlines()
            end = self.journal.fail(key, trial.config, lines[-1] if lines else "unknown error")
        self._progress(trial, end)

    def _progress(self, trial: Any, end: Ending) -> None:
        self.count += not end.failed
        value = end.metrics.get(self.metric)
        if value is not None:
            better = self.best is None or (value > self.best if self.mode == "max" else value < self.best)
            if better:
                self.best, self.recipe = value, canonical(trial.config)
            self.values[trial_key(trial.config)] = value
        if self.show is not None:
            replayed = bool((trial.last_result or {}).get("replayed"))
            self.show(self.count, self.total, canonical(trial.config), end, self.best, replayed)
