from __future__ import annotations

import numpy as np
import pytest

from raylora.bench.searchers import parse_searchers, run_once
from raylora.bench.stock import run_stock
from raylora.data.grids import load_grid


@pytest.mark.parametrize("name", ["tpe", "cmaes", pytest.param("optuna_gp", marks=pytest.mark.real)])
def test_a_peer_of_optuna_finds_what_optuna_finds_by_itself(name: str) -> None:
    grid, entry = load_grid("tulu3/llama_3.1_8b"), parse_searchers(name)[0]
    ours, stock = (
        np.mean([run(seed).mean() for seed in range(1 if name == "optuna_gp" else 2)])
        for run in (lambda s: run_once(entry, grid, s, 12), lambda s: run_stock(name, grid, s, 12))
    )
    assert ours <= stock + 1e-9


@pytest.mark.real
def test_the_gaussian_process_is_no_worse_than_botorchs_own() -> None:
    grid, entry = load_grid("tulu3/llama_3.1_8b"), parse_searchers("gp")[0]
    ours, stock = (
        np.array([run(seed).mean() for seed in range(3)])
        for run in (lambda s: run_once(entry, grid, s, 8), lambda s: run_stock("gp", grid, s, 8))
    )
    error = np.hypot(ours.std(ddof=1), stock.std(ddof=1)) / 3**0.5
    assert ours.mean() <= stock.mean() + 2 * error


def test_a_peers_own_package_is_named_by_its_searcher() -> None:
    assert parse_searchers("stock:gp")[0].options == {"preset": "gp"}
