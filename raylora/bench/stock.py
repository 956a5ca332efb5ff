"""Peers as their own packages' documentation uses them, on a recorded grid: what this package's may not fall behind.

No code of `searchers` but the space's: a grid is a list of configurations, each with its coordinates and positions.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.data.grids import Grid

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# Random configurations before a model is used.
STARTS = 5


def stock_gp(grid: Grid, seed: int, trials: int) -> list[int]:
    """BoTorch's `SingleTaskGP` and `LogExpectedImprovement` over the rows of the grid, after random ones.

    Returns:
        Indices in the grid's space, in the order of the trials.
    """
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.optim import optimize_acqf_discrete
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.manual_seed(seed)
    rows = np.array(list(grid.values))
    features = grid.space.features(rows)
    x = torch.from_numpy(features[:, features.std(axis=0) > 0])
    y = torch.tensor([[grid.values[int(row)]] for row in rows], dtype=torch.float64)
    tried = np.random.default_rng(seed).permutation(len(rows))[:STARTS].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while len(tried) < trials:
            model = SingleTaskGP(x[tried], y[tried])
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            free = [at for at in range(len(rows)) if at not in set(tried)]
            gain = LogExpectedImprovement(model, best_f=y[tried].max())
            chosen, _ = optimize_acqf_discrete(gain, q=1, choices=x[free])
            tried.append(free[int((x[free] - chosen).abs().sum(dim=1).argmin())])
    return [int(rows[at]) for at in tried[:trials]]


def _optuna(sampler: Callable[[int], BaseSampler], integers: bool) -> Callable[[Grid, int, int], list[int]]:
    def search(grid: Grid, seed: int, trials: int) -> list[int]:
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        found: list[int] = []

        def objective(trial: Any) -> float:
            positions = []
            for knob in grid.space.knobs:
                if integers and knob.kind == "ordinal" and len(knob) > 1:
                    positions.append(trial.suggest_int(knob.name, 0, len(knob) - 1))
                else:
                    positions.append(trial.suggest_categorical(knob.name, range(len(knob))))
            found.append(grid.nearest(grid.space.index(positions)))
            return grid.values[found[-1]]

        optuna.create_study(direction="maximize", sampler=sampler(seed)).optimize(objective, n_trials=trials)
        return found

    return search


def _tpe(seed: int) -> BaseSampler:
    import optuna

    return optuna.samplers.TPESampler(seed=seed)


def _gp(seed: int) -> BaseSampler:
    import optuna

    return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)


def _cmaes(seed: int) -> BaseSampler:
    import optuna

    return optuna.samplers.CmaEsSampler(seed=seed, with_margin=True, warn_independent_sampling=False)


# By the name of the searcher that each is held against.
STOCK: dict[str, Callable[[Grid, int, int], list[int]]] = {
    "gp": stock_gp,
    "tpe": _optuna(_tpe, integers=False),
    "optuna_gp": _optuna(_gp, integers=True),
    "cmaes": _optuna(_cmaes, integers=True),
}


def run_stock(name: str, grid: Grid, seed: int, trials: int) -> np.ndarray:
    """Regret after each trial, `(trials,)`, as `raylora.bench.searchers.run_once`."""
    values = np.array([grid.values[index] for index in STOCK[name](grid, seed, trials)])
    return (grid.best - np.maximum.accumulate(values)) / (grid.best - grid.median)
