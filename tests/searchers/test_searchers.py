from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import searchers
from searchers.space import Space


def test_every_searcher_is_found_by_name_and_says_what_it_is() -> None:
    assert searchers.available() == ["cmaes", "gp", "grid", "language", "latent", "nomad", "optuna_gp", "random", "tpe"]
    for name, cls in searchers.SEARCHERS.classes().items():
        assert cls.summary
        assert type(searchers.make_searcher(name)) is cls
        assert getattr(searchers, cls.__name__) is cls


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'bayes' is unknown; choose one of cmaes, gp, grid, .*, random, tpe"):
        searchers.make_searcher("bayes")
    with pytest.raises(ValueError, match=r"searcher random: .*colour"):
        searchers.make_searcher("random", colour="red")
    with pytest.raises(AttributeError):
        _ = searchers.nothing


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, searchers; print([m for m in ('torch', 'ray', 'optuna', 'transformers') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def loss_found(name: str, seed: int, **options: Any) -> float:
    """Lowest of the losses of 12 trials, all of which have a metric of 0."""
    space = Space.from_dict(
        {"learning_rate": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2], "rank": [2, 4, 8, 16, 32], "dropout": [0.0, 0.1]}
    )
    searcher = searchers.make_searcher(name, space=space, metric="score", mode="max", seed=seed, worst=0.0, **options)
    losses = []
    for number in range(12):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        off = math.log10(config["learning_rate"]) + 2.5
        losses.append(2.0 + off**2 + 0.1 * (math.log2(config["rank"]) - 5) ** 2 + config["dropout"])
        searcher.on_trial_complete(str(number), {"score": 0.0, "score_se": 0.0, "validation_loss": losses[-1]})
    return min(losses)


@pytest.mark.parametrize(
    ("name", "options"),
    [("language", {"local": True, "knowledge": False, "fit_steps": 15}), ("gp", {"n_initial": 3, "fit_steps": 20})],
)
def test_a_metric_of_zero_everywhere_does_not_blind_a_searcher_with_a_model(name: str, options: dict) -> None:
    by_chance = [loss_found("random", seed) for seed in range(20)]
    found = [loss_found(name, seed, **options) for seed in range(2)]
    assert np.mean(found) < np.mean(by_chance) - np.std(by_chance)
