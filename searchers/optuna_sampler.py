"""What the searchers that ask one of Optuna's samplers share: Ray's own adapter, told of everything that happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from .base import Common, Observation, SpaceSearcher
from .knob import Knob
from .space import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

# Proposals that are known to fail, before a random one is taken instead.
_TRIES = 10


class OptunaSamplerSearch(SpaceSearcher):
    """A searcher over Ray's `OptunaSearch`. Subclasses write `_sampler`, and `_distribution` where choices do not fit.

    Parameters are suggested knob by knob in the space's order, conditional ones only where they are active (Optuna's
    define-by-run form). Optuna's samplers may propose a configuration again; they are left as published.

    Arguments as for `SpaceSearcher`.
    """

    never_repeats: ClassVar[bool] = False

    def __init__(self, **common: Unpack[Common]) -> None:
        self._optuna: Any = None
        self._before_optuna: list[Observation] = []
        super().__init__(**common)

    def _sampler(self) -> BaseSampler:
        """A new sampler of Optuna's, seeded."""
        raise NotImplementedError

    @staticmethod
    def _distribution(knob: Knob) -> BaseDistribution:
        """How Optuna sees a knob: a distribution over the positions of its values."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(range(len(knob)))

    def _inner(self) -> Any:
        """Ray's OptunaSearch, made once space, metric and mode are known."""
        if self._optuna is None:
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            # Optuna announces every study and trial on stderr otherwise.
            optuna.logging.set_verbosity(logging.WARNING)
            # Before a trial can start, base has checked that metric and mode are set.
            ask = _KnobByKnob(self._space(), self._distribution)
            self._optuna = OptunaSearch(space=ask, metric=self._metric, mode=self._mode, sampler=self._sampler())
            for observation in self._before_optuna:
                self._tell(observation)
            self._before_optuna = []
        return self._optuna

    def _propose(self, trial_id: str) -> int | None:
        for _ in range(_TRIES):
            index = self._ask(trial_id)
            if index not in self._infeasible:
                return index
            # It would fail again: Optuna hears that it did, and is asked once more.
            self._withdraw(trial_id)
        left = self._space().sample(self.rng, 1, exclude=self._infeasible)
        if not left:
            return self._ask(trial_id)
        self._started(trial_id, left[0], queued=True)
        return left[0]

    def _ask(self, trial_id: str) -> int:
        """What Optuna proposes under that id."""
        self._inner().suggest(trial_id)
        given = self._inner()._ot_trials[trial_id].params
        # What a limit rules out stands for the nearest value that can be had, see `Space.index`.
        return self._space().index(given.get(name, 0) for name in self._space().names)

    def _withdraw(self, trial_id: str) -> None:
        from optuna.trial import TrialState

        inner = self._inner()
        if self.worst is None:
            inner._ot_study.tell(inner._ot_trials.pop(trial_id), state=TrialState.FAIL)
        else:
            inner._ot_study.tell(inner._ot_trials.pop(trial_id), self.worst)

    def _params(self, index: int) -> dict[str, int]:
        space = self._space()
        here = space.positions(index)
        return {name: p for name, p, on in zip(space.names, here, space.active(here), strict=True) if on}

    def _started(self, trial_id: str, index: int, queued: bool) -> None:
        if queued:
            # Optuna has to know the trial under its id: hand it the configuration and take it back at once.
            inner = self._inner()
            inner._ot_study.enqueue_trial(self._params(index))
            inner.suggest(trial_id)

    def _observed(self, observation: Observation, trial_id: str | None) -> None:
        if trial_id is not None:
            result = None if observation.value is None else {self._metric: observation.value}
            self._inner().on_trial_complete(trial_id, result, error=result is None)
        elif self._optuna is None:
            self._before_optuna.append(observation)
        else:
            self._tell(observation)

    def _tell(self, observation: Observation) -> None:
        """Adds a finished trial to the study itself: Ray's adapter refuses that for define-by-run spaces."""
        from optuna.trial import TrialState, create_trial

        params = self._params(observation.index)
        knobs = {k.name: k for k in self._space().knobs}
        trial = create_trial(
            state=TrialState.FAIL if observation.value is None else TrialState.COMPLETE,
            value=observation.value,
            params=params,
            distributions={name: self._distribution(knobs[name]) for name in params},
        )
        self._optuna._ot_study.add_trial(trial)


class _KnobByKnob:
    """Optuna's define-by-run function of a space; a class, because searchers pickle."""

    def __init__(self, space: Space, distribution: Callable[[Knob], Any]) -> None:
        self.space = space
        self.distributions = [distribution(knob) for knob in space.knobs]

    def __call__(self, trial: Any) -> None:
        from optuna.distributions import IntDistribution

        positions: list[int] = []
        for place, (knob, distribution) in enumerate(zip(self.space.knobs, self.distributions, strict=True)):
            if not self.space.is_active(place, positions):
                positions.append(0)
            elif isinstance(distribution, IntDistribution):
                positions.append(trial.suggest_int(knob.name, distribution.low, distribution.high))
            else:
                positions.append(trial.suggest_categorical(knob.name, distribution.choices))
