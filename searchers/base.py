"""What every searcher shares: the bookkeeping of observations, pending trials, queue, state and Tune's calls.

A concrete searcher writes `_propose(trial_id)` and, where it keeps a model of its own, `_observed(...)`.
"""

from __future__ import annotations

import inspect
import math
import os
import pickle
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import numpy as np
from ray.tune.search import Searcher

from .errors import OptionError
from .space import Space
from .surrogate.link import LOSS, judge, loss_of


@dataclass(frozen=True)
class Observation:
    """A finished trial.

    Args:
        index: the configuration's index in the space.
        value: the metric as reported; None when there is no finite value and no `worst` to stand in for it.
        samples: training samples seen when the value was reported, where the trial said so.
        error: standard error of the value, 0 where nothing is known of it.
        count: trials that the value is the mean of.
        loss: validation loss beside the value; inf where it was not finite, None where it is not known or is the value.
    """

    index: int
    value: float | None
    samples: int | None = None
    error: float = 0.0
    count: int = 1
    loss: float | None = None

    def merged(self, other: Observation) -> Observation:
        """This observation and a later one of the same configuration as one: their mean, with its standard error.

        Values after different numbers of samples cannot be averaged: then, and where one has no value, the later holds.
        """
        if self.value is None or other.value is None or self.samples != other.samples:
            return other
        count = self.count + other.count
        mean = (self.value * self.count + other.value * other.count) / count
        # What was reported, and what the two values themselves say.
        reported = math.hypot(self.error * self.count, other.error * other.count) / count
        seen = abs(self.value - other.value) * math.sqrt(self.count * other.count) / count / math.sqrt(count - 1)
        loss = None
        if self.loss is not None and other.loss is not None:
            loss = (self.loss * self.count + other.loss * other.count) / count
        return Observation(self.index, mean, self.samples, max(reported, seen), count, loss)


class Common(TypedDict, total=False):
    """The constructor's arguments that all searchers share, see `SpaceSearcher`."""

    space: Space | None
    metric: str | None
    mode: str | None
    seed: int
    points_to_evaluate: Iterable[Mapping[str, object]] | None
    worst: float | None


class SpaceSearcher(Searcher):
    """A Tune searcher over a finite `Space`.

    Trials without a finite value (errored, `failed` in their result, NaN, diverged) count as `worst` where it is known
    (the constructor's, or a `worst` in the trial's result), else the model never hears of them; either way the
    configuration is not proposed again. One that failed is not even by a searcher that may repeat others. A trial
    stopped early by a scheduler is observed at its last reported value, with the samples seen by then kept beside it.

    Args:
        space: what to search; may come later through Tune's `param_space` of `tune.choice` entries.
        metric: key of the trial results to optimise.
        mode: `"max"` or `"min"`.
        seed: of every random draw.
        points_to_evaluate: configurations to try first.
        worst: value that stands in for a trial without a finite one.

    Raises:
        ValueError: a value outside its domain; the message names it.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    never_repeats: ClassVar[bool] = True
    # Whether what it proposes next depends on the values that it was told.
    learns: ClassVar[bool] = True
    # The model that `leave_one_out` predicts with, in words; empty where there is none.
    belief: ClassVar[str] = ""
    # Options beside the constructor's named arguments.
    option_names: ClassVar[frozenset[str]] = frozenset()
    # What belongs to this process and must not travel with the state.
    _transient: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        space: Space | None = None,
        metric: str | None = None,
        mode: str | None = None,
        seed: int = 0,
        points_to_evaluate: Iterable[Mapping[str, Any]] | None = None,
        worst: float | None = None,
    ) -> None:
        if mode not in (None, "min", "max"):
            raise OptionError("mode", f"{mode!r} is unknown; use 'min' or 'max'", value=mode, allowed=("min", "max"))
        if worst is not None and not math.isfinite(worst):
            raise OptionError("worst", f"{worst!r} is not finite; give a finite value or leave it out", value=worst)
        super().__init__(metric=metric, mode=mode)
        # The base class keeps metric and mode only when both are given.
        self._metric, self._mode = metric, mode
        self.space: Space | None = None
        self.seed = int(seed)
        self.worst = worst
        self.rng = np.random.default_rng(self.seed)
        self._observations: dict[int, Observation] = {}
        self._pending: dict[str, int] = {}
        self._last: dict[str, dict[str, object]] = {}
        self._seen: set[int] = set()
        self._infeasible: set[int] = set()
        self._queue: list[int] = []
        self._initial_points = [dict(p) for p in points_to_evaluate or ()]
        # How long suggest() took, call by call, and how long a free slot has waited for one in all.
        self.suggest_seconds: list[float] = []
        self.waited_s = 0.0
        self._waits_since: float | None = None
        if space is not None:
            self._set_space(space)

    # -- what a run asks the class -----------------------------------------------------------------------------------

    @classmethod
    def options(cls) -> frozenset[str]:
        """Names of the searcher's own options: keyword-only arguments of its constructors, and `option_names`."""
        constructors = [vars(one)["__init__"] for one in cls.__mro__ if "__init__" in vars(one)]
        cut = constructors[: constructors.index(SpaceSearcher.__init__)]
        named = [p for one in cut for p in inspect.signature(one).parameters.values()]
        return cls.option_names.union(p.name for p in named if p.kind is p.KEYWORD_ONLY)

    @classmethod
    def wants(cls, options: Mapping[str, object]) -> frozenset[str]:
        """Which of its options, under these, a run should fill in where they are not given.

        A run knows: `samples` (training samples of a trial), `parameters` and `family` (of the base model, see
        `surrogate.learned.Context`), `scales` (how alpha scales each variant, see `surrogate.facts.scale_of`), `ratios`
        (best rates of variants as multiples of LoRA's), `seconds` (what trials are predicted to take, see `gp`), `llm`
        (folder of a language model), and of the spec `prior`, `prompt` and `learn_from` (earlier results, see
        `surrogate.transfer.Source`).
        """
        return frozenset()

    @classmethod
    def check(cls, options: Mapping[str, Any], space: Space | None = None) -> None:
        """Refuses options that are wrong by themselves, or for the space where it is given.

        Raises:
            ValueError: the message begins with the option.
        """
        try:
            cls(**options)
        except TypeError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def leave_one_out(
        cls, space: Space, indices: Sequence[int], values: Sequence[float], options: Mapping[str, Any], seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """What its model believes of each of some trials, told of all others: for reports.

        Written by a searcher whose `belief` is not empty.

        Args:
            space: what was searched.
            indices: distinct configurations of it, (n,), n >= 2.
            values: what came out, not all equal, (n,).
            options: the searcher's own, as it was made with.
            seed: the searcher's.

        Returns:
            Predictions and their standard deviations, (n,) each, in the values' unit.
        """
        raise NotImplementedError

    def embeddings(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Features by which its model tells configurations apart, `(n, m)` each, under a name: for reports.

        Asked once, after a search; it may take seconds. Empty where the model sees the knobs themselves, or there is
        none yet.

        Args:
            indices: configurations of its space, (n,).
        """
        return {}

    # -- what subclasses write -------------------------------------------------------------------------------------

    def _propose(self, trial_id: str) -> int | None:
        """The index of a configuration to try, or None for "ask again". Called while unseen configurations remain."""
        raise NotImplementedError

    def _started(self, trial_id: str, index: int, queued: bool) -> None:
        """Called when a trial starts; `queued` tells that the configuration was asked for from outside."""

    def _observed(self, observation: Observation, trial_id: str | None) -> None:
        """Called for every finished trial, with what this one reported; its value may be None."""

    def _ready(self) -> None:
        """Called once the space is known."""

    # -- observations from outside ---------------------------------------------------------------------------------

    @property
    def observations(self) -> list[Observation]:
        """Finished trials, oldest first."""
        return list(self._observations.values())

    @property
    def evidence(self) -> list[tuple[int, float, float]]:
        """Trials with a value as a model should be told of them: index, merit (larger is better), standard error.

        Where the metric has errors, or is the same everywhere, the validation loss counts too: see `surrogate.link`.
        """
        told = [(o, o.value) for o in self._observations.values() if o.value is not None]
        sign = -1.0 if self._mode == "min" else 1.0
        found = judge(
            np.array([sign * value for _, value in told]),
            np.array([o.error for o, _ in told]),
            np.array([math.nan if o.loss is None else o.loss for o, _ in told]),
        )
        return list(zip([o.index for o, _ in told], found.merit.tolist(), found.noise.tolist(), strict=True))

    @property
    def pending(self) -> dict[str, dict[str, object]]:
        """Running trials: `{trial id: configuration}`."""
        return {t: self._space().decode(i) for t, i in self._pending.items()}

    @property
    def queued(self) -> int:
        """Configurations that were asked for from outside and are not proposed yet."""
        return len(self._queue)

    def record(
        self,
        config: Mapping[str, object],
        value: float | None,
        samples: int | None = None,
        error: float = 0.0,
        loss: float | None = None,
    ) -> None:
        """Adds a trial that was finished elsewhere, with what `Observation` has; the same configuration is averaged.

        Raises:
            ValueError: the configuration is not in the space.
        """
        index = self._space().encode(config)
        self._queue = [i for i in self._queue if i != index]
        if value is None:
            self._infeasible.add(index)
        self._finish(index, value, samples, None, error=error, loss=loss)

    def retract(self, config: Mapping[str, object]) -> None:
        """Forgets what was recorded of a configuration, which is not proposed again: what is recorded next replaces it.

        Models outside this package, which keep what they were told, go on with both.
        """
        self._observations.pop(self._space().encode(config), None)

    def claim(self, config: Mapping[str, object]) -> None:
        """Leaves a configuration to whoever asks: it is neither proposed nor listed as running."""
        index = self._space().encode(config)
        self._pending = {t: i for t, i in self._pending.items() if i != index}
        self._queue = [i for i in self._queue if i != index]
        self._seen.add(index)

    def enqueue(self, configs: Iterable[Mapping[str, object]]) -> None:
        """Proposes these configurations before anything else, each once, even if they were tried before.

        A trial still listed as running with the same configuration is taken to be lost and is forgotten.

        Raises:
            ValueError: a configuration is not in the space.
        """
        for index in [self._space().encode(c) for c in configs]:
            self._pending = {t: i for t, i in self._pending.items() if i != index}
            if index not in self._queue:
                self._queue.append(index)
            self._seen.add(index)

    def reseed(self, seed: int) -> None:
        """Draws from another seed, before the first proposal: one that is told of many trials begins no stream anew."""
        self.seed = int(seed)
        self.rng = np.random.default_rng(self.seed)

    def exclude(self, indices: Iterable[int]) -> None:
        """Never proposes these configurations (where the searcher never repeats; others may still)."""
        self._seen.update(int(i) for i in indices)

    def forget(self, trial_id: str) -> None:
        """Drops a running trial that will never finish; its configuration is not proposed again."""
        self._pending.pop(trial_id, None)
        self._last.pop(trial_id, None)

    def add_evaluated_point(
        self,
        parameters: Mapping[str, object],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Tune's name for `record`."""
        self.record(parameters, None if error else value)

    # -- Tune's calls ----------------------------------------------------------------------------------------------

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, object], **spec: object
    ) -> bool:
        """Takes over what was not given at construction; False when the space was already set.

        Tune calls this only when its `param_space` is not empty.
        """
        self._metric = self._metric or metric
        self._mode = self._mode or mode
        if self.space is not None:
            return False
        if not config:
            return False
        self._set_space(Space.from_tune(config))
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration, `Searcher.FINISHED` when none is left, or None for "ask again".

        The time that it took is appended to `suggest_seconds`; `waited_s` sums the time from a None to what follows it.

        Raises:
            ValueError: space, metric or mode were never set.
        """
        started = time.perf_counter()
        suggested = self._suggest(trial_id)
        now = time.perf_counter()
        self.suggest_seconds.append(now - started)
        if suggested is None:
            self._waits_since = started if self._waits_since is None else self._waits_since
        elif self._waits_since is not None:
            self.waited_s += now - self._waits_since
            self._waits_since = None
        return suggested

    def _suggest(self, trial_id: str) -> dict[str, object] | str | None:
        space = self._space()
        if self._metric is None or self._mode is None:
            raise ValueError(
                "metric, mode: not set; pass them to the searcher (Tune forwards them only with a param_space)"
            )
        if trial_id in self._pending:
            return space.decode(self._pending[trial_id])
        queued = bool(self._queue)
        if queued:
            index: int | None = self._queue.pop(0)
        elif self.never_repeats and len(self._seen) >= len(space):
            return Searcher.FINISHED
        else:
            index = self._propose(trial_id)
        if index is None:
            return None
        self._seen.add(index)
        self._pending[trial_id] = index
        self._started(trial_id, index, queued)
        return space.decode(index)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self._pending and self._metric in result:
            kept = (self._metric, f"{self._metric}_se", "samples", "worst", LOSS, "diverged")
            self._last[trial_id] = {k: result[k] for k in kept if k in result}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Books the trial. Unknown trial ids (finished twice, or from before a restore) are ignored."""
        index = self._pending.pop(trial_id, None)
        last = self._last.pop(trial_id, {})
        if index is None:
            return
        # Tune may report a failed trial with its last good result: that value says nothing about the configuration.
        result = {**last, **(result or {})}
        error = error or bool(result.get("failed"))
        if error:
            self._infeasible.add(index)
        value = None if error else result.get(str(self._metric))
        worst = result.get("worst", self.worst)
        error_bar = 0.0 if value is None else result.get(f"{self._metric}_se")
        self._finish(index, value, result.get("samples"), trial_id, worst, error_bar, loss_of(result))

    def _finish(
        self,
        index: int,
        value: Any,
        samples: Any,
        trial_id: str | None,
        worst: float | None = None,
        error: Any = 0.0,
        loss: float | None = None,
    ) -> None:
        number = _finite(value)
        if number is None:
            number, error, loss = _finite(self.worst if worst is None else worst), 0.0, math.inf
        observation = Observation(
            index,
            number,
            None if samples is None else int(samples),
            max(0.0, _finite(error) or 0.0),
            loss=None if self._metric == LOSS else loss,
        )
        known = self._observations.get(index)
        self._seen.add(index)
        # Re-inserted, so that the order is that of arrival.
        self._observations.pop(index, None)
        self._observations[index] = observation if known is None else known.merged(observation)
        self._observed(observation, trial_id)

    # -- state -----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in self._transient}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__dict__.update(state)
        # Another process has another clock.
        self._waits_since = None
        self.__dict__.setdefault("_infeasible", set())  # of an earlier release
        for name in self._transient:
            self.__dict__.setdefault(name, None)

    def get_state(self) -> dict[str, object]:
        return self.__getstate__()

    def set_state(self, state: Mapping[str, object]) -> None:
        self.__setstate__(state)

    def save(self, checkpoint_path: str) -> None:
        """Writes the whole state to one file (Tune reads it back with `restore`; a pickle, as Tune's own searchers)."""
        with open(checkpoint_path, "wb") as file:
            pickle.dump(self.__getstate__(), file)
            file.flush()
            os.fsync(file.fileno())

    def restore(self, checkpoint_path: str) -> None:
        """Takes over the state written by `save`, also into a searcher made with no arguments."""
        self.restore_bytes(Path(checkpoint_path).read_bytes())

    def restore_bytes(self, state: bytes) -> None:
        """Takes over what `save` wrote, from memory: whoever checked the bytes loads what was checked."""
        self.__setstate__(pickle.loads(state))

    # -- small helpers ---------------------------------------------------------------------------------------------

    def _space(self) -> Space:
        if self.space is None:
            raise ValueError("space: not set; pass space=... to the searcher, or tune.choice entries in param_space")
        return self.space

    def _set_space(self, space: Space) -> None:
        if not isinstance(space, Space):
            raise OptionError(
                "space",
                f"{type(space).__name__} is not a Space; use Space.from_dict({{...}})",
                value=type(space).__name__,
            )
        self.space = space
        self.enqueue(self._initial_points)
        self._ready()


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
