"""`search.scheduler: curve` under Tune: a searcher and a scheduler that pause trials and go on with them.

Trials report their validation loss where the samples double (`TrainSettings.doubling`). After each report
`Pool.choose` says who has the next samples: the trial itself, a paused one, or a new one. Tune starts whatever its
searcher proposes, so that a proposal is held back until it is chosen; paused trials are the scheduler's to choose.

A pause costs no checkpoint of Tune's: the host has put the trial's state into the run's folder when it reported. From
there it goes on, in this attempt as a paused trial of Tune's, in a later one as a new trial of the same configuration.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from raylora.run.journaled import JournaledSearcher
from raylora.run.pool import NEW, Pool
from searchers.surrogate.link import LOSS
from trainables.journal import Journal, trial_key
from trainables.saved import CHECKPOINTS
from trainables.stops import asked_to_stop
from trainables.store import store_of

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    from searchers.base import SpaceSearcher
    from trainables.journal import Knobs


class CurveSearcher(JournaledSearcher):
    """Proposes a configuration when the pool would rather begin one than go on with another.

    The searcher within is told of a trial that is paused what is forecast of it, with its error, and of one that goes
    on what comes of it then.

    Args:
        pool: what is known of the trials; its budget is that of the search.
        hosts: trials at a time.
    """

    def __init__(self, inner: SpaceSearcher, run_dir: str, pool: Pool, hosts: int, trials: int) -> None:
        self.pool, self.hosts = pool, hosts
        super().__init__(inner, run_dir, metric=LOSS, mode="min", trials=trials)
        # No trial goes on after this, in seconds since the epoch.
        self.deadline = math.inf
        # Whether nothing is left to do: what is paused stays so.
        self.over = False
        # Trials of earlier attempts that Tune has not heard of.
        self.waiting: dict[str, dict[str, Any]] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        self._names: dict[str, str] = {}
        # What would begin next: the searcher's name for it, and the configuration.
        self._held: tuple[str, dict[str, Any]] | None = None
        self._exhausted = False
        self._told: set[str] = set()

    @property
    def trials(self) -> int | None:
        """Whole trials that the search has samples for."""
        return self._trials

    @trials.setter
    def trials(self, trials: int | None) -> None:
        self._trials = trials
        if trials is not None:
            self.pool.budget = trials * self.pool.samples

    @property
    def hopeless(self) -> bool:
        return super().hopeless and not any(member.losses for member in self.pool.members.values())

    # -- what an earlier attempt left -----------------------------------------------------------------------------

    def catch_up(self, say: Callable[[str], None] = lambda line: None) -> None:
        super().catch_up(say)
        inner, journal = self._inner(), Journal(str(self.run_dir))
        concluded, started = journal.concluded(), journal.started()
        for key, start in started.items():
            self.pool.begin(key, self._index(start.config))
        for row in journal.rows():
            if row["event"] in ("report", "finish") and row["key"] in started and row.get("samples") is not None:
                self.pool.report(row["key"], int(row["samples"]), row.get(LOSS))
        for key, start in started.items():
            end = concluded.get(key)
            if end is None:
                self.pool.pause(key)
                if self.pool.members[key].index is not None:
                    self.waiting[key] = self._respell(start.config)
                    inner.claim(self.waiting[key])
                continue
            self._close(key, end.failed, end.diverged, end.metrics.get("samples"))
        for key in self.waiting:
            self._told.add(key)
            self._tell_forecast(key)

    def _unfinished(self, config: dict[str, Any]) -> None:
        """Waits: whether it goes on is the pool's to say."""

    # -- Tune's calls ---------------------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._replays and len(self._passive) < self.hosts:
            self._passive.add(trial_id)
            return self._replays.pop(0)
        if self._replays or self._passive:
            return None
        if self.over:
            return Searcher.FINISHED
        for key in [key for key in self.waiting if asked_to_stop(str(self.run_dir), key)]:
            self.pool.end(key)
            del self.waiting[key]
        if self._may_begin() and self.pool.running < self.hosts:
            if self._asked:
                self._outside.add(trial_id)
                return self._begun(trial_id, self._asked.pop(0))
            if self._inner().queued:
                config = self._proposal(trial_id)
                if config is not None:
                    return self._begun(trial_id, config)
        chosen = self.choose()
        if chosen == NEW:
            assert self._held is not None
            name, config = self._held
            self._held, self._names[trial_id] = None, name
            self._begun(trial_id, config)
            self._write()
            return config
        if chosen in self.waiting:
            return self._begun(trial_id, self.waiting.pop(chosen))
        self.over = chosen is None and self.pool.running == 0 and not self._thinking()
        return Searcher.FINISHED if self.over else None

    def choose(self) -> str | None:
        """Key of the trial that has the next samples, NEW, or None; asked where a host is free."""
        if self._replays or self._passive or self.pool.running >= self.hosts or time.time() >= self.deadline:
            return None
        may = self._may_begin()
        if may and self._held is None and not self._exhausted:
            name = f"held-{len(self._configs)}"
            config = self._proposal(name)
            self._held = None if config is None else (name, config)
        if may and self._thinking():
            return None
        return self.pool.choose(self._index(self._held[1]) if may and self._held else None)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id not in self._passive | self._outside:
            self._inner().on_trial_result(self._names.get(trial_id, trial_id), result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        told = result or {}
        failed = error or bool(told.get("failed"))
        self.failed += failed
        self.finished += not failed
        if trial_id in self._passive:
            self._passive.discard(trial_id)
            return
        self._failed_now += failed
        self._running.discard(trial_id)
        key = self._keys[trial_id]
        if told.get("samples") is not None:
            self.pool.report(key, int(told["samples"]), told.get(LOSS))
        self._close(key, failed, bool(told.get("diverged")), told.get("samples"))
        if trial_id in self._outside:
            self._outside.discard(trial_id)
        elif key not in self._told:
            self._inner().on_trial_complete(self._names.get(trial_id, trial_id), result, error)
            self._write()
        elif told or error:
            lost = self.pool.members[key].lost
            self._tell(key, None if lost else told.get(LOSS), told.get("samples"))
            self._write()

    # -- what the scheduler says ----------------------------------------------------------------------------------

    def reported(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Takes in a report before the last; answers whether the trial itself goes on."""
        key = self._keys.get(trial_id)
        if key is None or trial_id in self._outside:
            return True
        self.pool.report(key, int(result["samples"]), result.get(LOSS))
        self.pool.pause(key)
        if self.choose() == key:
            self.pool.begin(key, None)
            return True
        return False

    def paused(self, trial_id: str) -> None:
        """A trial is paused: the searcher is told what is forecast of it."""
        key = self._keys[trial_id]
        if key not in self._told:
            self._inner().forget(self._names.get(trial_id, trial_id))
            self._told.add(key)
        self._tell_forecast(key)
        self._write()

    def goes_on(self, key: str) -> None:
        """A paused trial runs again."""
        self.pool.begin(key, None)

    # -- small helpers --------------------------------------------------------------------------------------------

    def _may_begin(self) -> bool:
        if self.trials is not None and (self.failed >= self.trials or self.hopeless):
            return False
        return self.enough is None or not self.enough()

    def _thinking(self) -> bool:
        """Whether the searcher has yet to say what would begin."""
        return self._may_begin() and self._held is None and not self._exhausted

    def _proposal(self, name: str) -> dict[str, Any] | None:
        self.choosing = True
        try:
            found = self._inner().suggest(name)
        finally:
            self.choosing = False
        self._exhausted = found == Searcher.FINISHED
        return found if isinstance(found, dict) else None

    def _begun(self, trial_id: str, config: dict[str, Any]) -> dict[str, Any]:
        key = trial_key(config)
        self._running.add(trial_id)
        self._keys[trial_id], self._configs[key] = key, config
        self.pool.begin(key, self._index(config))
        return config

    def _close(self, key: str, failed: bool, diverged: bool, samples: Any) -> None:
        lost = failed or diverged
        whole = not lost and samples is not None and int(samples) >= self.pool.samples
        self.pool.end(key, whole=whole, lost=lost)

    def _index(self, config: Knobs) -> int | None:
        space = self._inner().space
        return space.encode(config) if space is not None and config in space else None

    def _tell_forecast(self, key: str) -> None:
        member = self.pool.members[key]
        if member.losses:
            found = self.pool.forecast([key])
            self._tell(key, float(found.loss[0]), member.samples, float(found.error[0]))

    def _tell(self, key: str, value: float | None, samples: Any, error: float = 0.0) -> None:
        """Have the searcher know this of a trial, and nothing that it was told before."""
        inner, index = self._inner(), self.pool.members[key].index
        if inner.space is None or index is None:
            return
        config = inner.space.decode(index)
        inner.retract(config)
        inner.record(config, value, None if samples is None else int(samples), error)


class CurveScheduler(TrialScheduler):
    """Tune's side of it: pauses after a report whom the pool does not choose, and goes on with whom it does."""

    # A report is answered before the next one is trained for.
    _supports_buffered_results = False

    def __init__(self, searcher: CurveSearcher) -> None:
        super().__init__()
        self.searcher = searcher

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: object) -> bool:
        return True

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        pass

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        pass

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        pass

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        pass

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        if self.searcher.reported(trial.trial_id, result):
            return TrialScheduler.CONTINUE
        # The host has its state already.
        tune_controller.pause_trial(trial, should_checkpoint=False)
        self.searcher.paused(trial.trial_id)
        return TrialScheduler.NOOP

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        paused = {trial_key(one.config): one for one in tune_controller.get_trials() if one.status == "PAUSED"}
        for key, trial in list(paused.items()):
            if self.searcher.over or asked_to_stop(str(self.searcher.run_dir), key):
                del paused[key]
                tune_controller.stop_trial(trial)
        if not paused:
            return None
        chosen = self.searcher.choose()
        if chosen not in paused:
            return None
        self.searcher.goes_on(str(chosen))
        return paused[str(chosen)]

    def debug_string(self) -> str:
        return "curve: pauses trials by the forecast of their final validation loss"


def conclude_paused(folder: Path, searcher: CurveSearcher) -> None:
    """Ends the trials that are paused for good: they count as stopped, and their states are no more of use."""
    journal, store = Journal(folder), store_of(folder)
    concluded = journal.concluded()
    for key, start in journal.started().items():
        member = searcher.pool.members.get(key)
        if member is None or member.state == "running" or member.whole:
            continue
        if key not in concluded:
            journal.finish(key, start.config, journal.last_report(key), stopped=True)
        shutil.rmtree(folder / CHECKPOINTS / key, ignore_errors=True)
        if store is not None:
            store.remove(f"{CHECKPOINTS}/{key}")
