"""The learned prior, held against recorded runs that it never saw.

Leave-one-out: for each family of models, the prior is fitted without any table of that family; what it then recommends
for the family's tables, and what the searcher finds with it, is compared with the best run of each table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.bench.prior import fit_prior
from raylora.bench.searchers import parse_searchers, run_once
from raylora.data.grids import Grid, bundled, load_grid
from raylora.progress import Progress
from raylora.spec.model import SearchSpec

if TYPE_CHECKING:
    from searchers.surrogate.learned import Learned

SWEEPS = "tulu3/"
# What people do without a prior: a rate for everything, and one that falls with the model's size.
_FIXED = (1e-4, 2e-4, 3e-4, 5e-4, 1e-3)
_TRIALS = 3


@dataclass(frozen=True)
class _Case:
    """A table held back, the prior fitted without it, and the options of the searcher."""

    grid: str
    learned: Learned
    seeds: int
    searcher: str


def bench_recommend(
    grids: Sequence[str] = (),
    *,
    without: Sequence[str] | None = None,
    seeds: int = 5,
    searcher: str | None = None,
    jobs: int | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """What is recommended, and found in three trials, on tables that the prior never saw.

    Args:
        grids: tables; none for all of the bundled sweeps over models.
        without: what the prior is fitted without; None for the family of each table in turn.
        seeds: searches per table; 0 for none.
        searcher: which one, with options as for `bench searchers`; None for the one that a spec has.

    Returns:
        `{"tables": {NAME: {"recommended", "lost", "searched"}}, "mean": {...}}`: `lost` is how far the recommended
        configuration is below the best of the table, `searched` the same of the best after each of three trials, mean
        over the seeds; `rules` the same of fixed rates at the largest rank. All in the table's unit.
    """
    names = list(grids) or [name for name in bundled() if name.startswith(SWEEPS)]
    loaded = {name: load_grid(name) for name in names}
    progress = Progress(quiet=quiet)
    left_out = {name: _left_out(grid, without) for name, grid in loaded.items()}
    priors: dict[tuple[str, ...], Learned] = {}
    for key in sorted(set(left_out.values())):
        progress.say(f"fitting without {', '.join(key) or 'nothing'}")
        priors[key] = fit_prior(key)
    asked = searcher or SearchSpec().searcher
    cases = [_Case(name, priors[left_out[name]], seeds, asked) for name in names]
    context = get_context("spawn")
    with ProcessPoolExecutor(min(len(cases), jobs or os.cpu_count() or 1), mp_context=context) as pool:
        tables = {}
        for case, found in zip(cases, pool.map(_run_case, cases), strict=True):
            tables[loaded[case.grid].name] = {"without": list(left_out[case.grid]), **found}
            progress.say(f"{case.grid}: recommended {found['lost']:.4f} below its best")
    return {"tables": tables, "mean": _means(list(tables.values()))}


def _left_out(grid: Grid, without: Sequence[str] | None) -> tuple[str, ...]:
    if without is not None:
        return tuple(sorted(without))
    known = {load_grid(name).family for name in bundled()}
    return (grid.family,) if grid.family in known and grid.family else ()


def _run_case(case: _Case) -> dict[str, Any]:
    from searchers.surrogate.advice import advise
    from searchers.surrogate.learned import Context
    from trainables.variants import scale_rules

    grid = load_grid(case.grid)
    context = Context(grid.samples, grid.parameters, grid.family)
    advice = advise([grid.space.decode(i) for i in grid.values], case.learned, context, scale_rules())
    found: dict[str, Any] = {
        "recommended": {name: advice.config[name] for name in ("rank", "learning_rate") if name in advice.config},
        "expected": advice.expected,
        "lost": grid.best - grid.values[grid.space.encode(advice.config)],
        "rules": {name: rule(grid) for name, rule in _rules().items()},
    }
    if case.seeds:
        curves = [_search(case, grid, seed) for seed in range(case.seeds)]
        found["searched"] = np.mean(curves, axis=0).tolist()
    return found


def _search(case: _Case, grid: Grid, seed: int) -> list[float]:
    """How far the best found is below the grid's best after each trial."""
    entry = parse_searchers(case.searcher)[0]
    trials = min(_TRIALS, len(grid.values))
    regret = run_once(entry, grid, seed, trials, learned=case.learned)
    return (regret * (grid.best - grid.median)).tolist()


def _rules() -> dict[str, Callable[[Grid], float]]:
    rules = {f"{rate:g} at the largest rank": _at(rate) for rate in _FIXED}
    return {**rules, "2e-4 (size / 8e9)^-0.3": _at(2e-4, -0.3)}


def _at(rate: float, exponent: float = 0.0) -> Callable[[Grid], float]:
    """What is lost at the recorded rate nearest to `rate` (size / 8B)^exponent, at the largest rank recorded there."""

    def lost(grid: Grid) -> float:
        configs = {index: grid.space.decode(index) for index in grid.values}
        wanted = np.log10(rate * ((grid.parameters or 8e9) / 8e9) ** exponent)

        def order(index: int) -> tuple[float, float]:
            config: Mapping[str, Any] = configs[index]
            return -float(config.get("rank", 0)), abs(np.log10(float(config["learning_rate"])) - wanted)

        return grid.best - grid.values[min(configs, key=order)]

    return lost


def _means(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {"lost": float(np.mean([table["lost"] for table in tables]))}
    searched = [table["searched"] for table in tables if "searched" in table]
    if searched:
        means["searched"] = [float(np.mean(step)) for step in zip(*searched, strict=False)]
    means["rules"] = {name: float(np.mean([table["rules"][name] for table in tables])) for name in tables[0]["rules"]}
    return means
