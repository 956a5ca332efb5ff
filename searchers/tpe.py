"""Tree-structured Parzen estimator: Optuna's, through Ray's own adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .optuna_sampler import OptunaSamplerSearch

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class TPESearch(OptunaSamplerSearch):
    """Optuna's TPE sampler over the space's values as categorical choices (the paper's "Optuna" baseline).

    Optuna's sampler may propose a configuration again; it is left as published. Arguments as for `SpaceSearcher`.

    Reference: Akiba et al., "Optuna: a next-generation hyperparameter optimization framework", KDD 2019.
    """

    name: ClassVar[str] = "tpe"
    summary: ClassVar[str] = "Optuna's tree-structured Parzen estimator (may repeat a configuration)"

    def _sampler(self) -> BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(seed=self.seed)
