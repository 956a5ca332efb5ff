"""Tree-structured Parzen estimator: Optuna's, through Ray's own adapter."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .base import Observation, SpaceSearcher
from .space import Space


class TPESearch(SpaceSearcher):
    """Optuna's TPE sampler over the space's values as categorical choices (the paper's "Optuna" baseline).

    Optuna's sampler may propose a configuration again; it is left as published. Arguments as for `SpaceSearcher`.

    Reference: Akiba et al., "Optuna: a next-generation hyperparameter optimization framework", KDD 2019.
    """

    summary: ClassVar[str] = "Optuna's tree-structured Parzen estimator (may repeat a configuration)"
    never_repeats: ClassVar[bool] = False

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
        self._optuna: Any = None
        self._before_optuna: list[Observation] = []
        super().__init__(
            space=space, metric=metric, mode=mode, seed=seed, points_to_evaluate=points_to_evaluate, worst=worst
        )

    def _inner(self) -> Any:
        """Ray's OptunaSearch, made once space, metric and mode are known."""
        if self._optuna is None:
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            # Optuna announces every study and trial on stderr otherwise.
            optuna.logging.set_verbosity(logging.WARNING)
            space = OptunaSearch.convert_search_space(self._space().to_tune())
            sampler = optuna.samplers.TPESampler(seed=self.seed)
            self._optuna = OptunaSearch(space=space, metric=self._metric, mode=self._mode, sampler=sampler)
            for observation in self._before_optuna:
                self._tell(observation)
            self._before_optuna = []
        return self._optuna

    def _propose(self, trial_id: str) -> int | None:
        return self._space().encode(self._inner().suggest(trial_id))

    def _started(self, trial_id: str, index: int, queued: bool) -> None:
        if queued:
            # Optuna has to know the trial under its id: hand it the configuration and take it back at once.
            inner = self._inner()
            inner._ot_study.enqueue_trial(self._space().decode(index))
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
        config = self._space().decode(observation.index)
        if observation.value is None:
            self._optuna.add_evaluated_point(config, 0.0, error=True)
        else:
            self._optuna.add_evaluated_point(config, observation.value)
