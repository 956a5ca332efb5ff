"""Covariance matrix adaptation: Optuna's sampler over the `cmaes` package, through Ray's own adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .knob import Knob
from .optuna_sampler import OptunaSamplerSearch

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


class CmaEsSearch(OptunaSamplerSearch):
    """Optuna's `CmaEsSampler` with a margin, the variant of CMA-ES for integers.

    Ordinal knobs are integers (the positions of their values). Categorical and conditional ones are outside of what
    CMA-ES adapts: Optuna draws them at random. The first trial is random. It may propose a configuration again; it is
    left as published. Arguments as for `SpaceSearcher`.

    References: Hamano et al., "CMA-ES with margin: lower-bounding marginal probability for mixed-integer black-box
    optimization", GECCO 2022; Nomura and Shibata, "cmaes: a simple yet practical Python library for CMA-ES", 2024.
    """

    name: ClassVar[str] = "cmaes"
    summary: ClassVar[str] = "CMA-ES with margin on knob positions (Optuna, may repeat a configuration)"

    def _sampler(self) -> BaseSampler:
        import optuna

        return optuna.samplers.CmaEsSampler(seed=self.seed, with_margin=True, warn_independent_sampling=False)

    @staticmethod
    def _distribution(knob: Knob) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        # The sampler adapts what every trial has: a conditional knob would change the dimension under way.
        if knob.kind == "categorical" or knob.when or len(knob) == 1:
            return CategoricalDistribution(range(len(knob)))
        return IntDistribution(0, len(knob) - 1)
