"""Gaussian-process search as Optuna does it, through Ray's own adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .gp import GPSearch
from .knob import Knob
from .optuna_sampler import OptunaSamplerSearch
from .space import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


class OptunaGPSearch(OptunaSamplerSearch):
    """Optuna's `GPSampler`: Matern-5/2 kernel with automatic relevance determination, LogEI, running trials imputed.

    Ordinal knobs are integers (the positions of their values), categorical ones choices. The first 10 trials are
    random, and so are conditional knobs always, because the sampler models only parameters that every trial has. It may
    propose a configuration again; it is left as published. Arguments as for `SpaceSearcher`.

    Reference: Akiba et al., "Optuna: a next-generation hyperparameter optimization framework", KDD 2019;
    `optuna.samplers.GPSampler`.
    """

    name: ClassVar[str] = "optuna_gp"
    summary: ClassVar[str] = "Optuna's Gaussian-process sampler (may repeat a configuration)"
    belief: ClassVar[str] = "a Gaussian process that stands in for Optuna's"

    @classmethod
    def leave_one_out(
        cls, space: Space, indices: Sequence[int], values: Sequence[float], options: Mapping[str, Any], seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        return GPSearch.leave_one_out(space, indices, values, {}, seed)

    def _sampler(self) -> BaseSampler:
        import optuna

        # The random draws outside the model are the sampler's own: without the warning about each of them.
        return optuna.samplers.GPSampler(seed=self.seed, warn_independent_sampling=False)

    @staticmethod
    def _distribution(knob: Knob) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        if knob.kind == "categorical":
            return CategoricalDistribution(range(len(knob)))
        return IntDistribution(0, len(knob) - 1)
