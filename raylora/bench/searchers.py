"""Searchers on recorded grids: how soon does each find what a grid holds?

A searcher proposes rows of a grid and gets back their accuracy. Regret after t trials is (best of the grid - best
found) / (best - median of the grid); `auc` is its mean over the trials. A proposal that the grid does not hold (grids
need not be full products) is answered with the nearest row; searchers that never repeat are told which those are.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from raylora.bench.stock import STOCK, run_stock
from raylora.data.grids import Grid, load_grid
from raylora.errors import UserError
from raylora.progress import Progress

if TYPE_CHECKING:
    from searchers.surrogate.learned import Learned

REPORTED = (1, 5, 10, 20, 30)


@dataclass(frozen=True)
class Entry:
    """A searcher with its options, as named on the command line: `language:paper`, `language:default,knowledge=off`."""

    label: str
    name: str
    options: Mapping[str, Any]


def parse_searchers(text: str) -> list[Entry]:
    """`A,B:preset,option=value,C` -> entries. An item with `=` belongs to the searcher before it.

    `stock:NAME` is the searcher's peer in its own package, see `raylora.bench.stock`.

    Raises:
        UserError: an unknown searcher, or an option without a searcher.
    """
    from searchers import available

    entries: list[tuple[str, str, dict[str, object]]] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        if "=" in item.partition(":")[0]:
            if not entries:
                raise UserError.at(
                    "--searchers", f"option {item!r} stands before any searcher; allowed: NAME,{item}", value=item
                )
            label, name, options = entries[-1]
            key, _, value = item.partition("=")
            options[key.strip()] = yaml.safe_load(value)
            entries[-1] = (f"{label},{item}", name, options)
            continue
        name, _, preset = item.partition(":")
        if name == "stock" and preset in STOCK:
            entries.append((item, name, {"preset": preset}))
            continue
        if name not in available():
            raise UserError.at(
                "--searchers",
                f"{name!r}: no such searcher; allowed: {', '.join(available())}, stock:{', stock:'.join(STOCK)}",
                value=name,
                allowed=list(available()),
            )
        options = {}
        if "=" in preset:
            key, _, value = preset.partition("=")
            options[key] = yaml.safe_load(value)
        elif preset:
            options["preset"] = preset
        entries.append((item, name, options))
    if not entries:
        raise UserError.at("--searchers", "is empty; allowed: NAME,NAME,...", value=text)
    return [Entry(*entry) for entry in entries]


def bench_searchers(
    grids: Sequence[str],
    searchers: str,
    *,
    seeds: int = 20,
    trials: int = 30,
    prior_shift: float = 1.0,
    llm: str = "smollm2-135m",
    jobs: int | None = None,
    without: Sequence[str] | None = None,
    quiet: bool = False,
) -> dict[str, object]:
    """Runs every searcher on every grid with every seed.

    Args:
        grids: CSV files, or names of bundled grids.
        searchers: see `parse_searchers`.
        prior_shift: a factor by which the expected learning rate of knowledge is put off.
        llm: language model of the language searcher.
        jobs: processes side by side; None for one per core.
        without: searchers with knowledge have the prior learned without these tables, families or origins (see
            `raylora.bench.prior.fit_prior`); None for the one that they come with.

    Returns:
        `{"searchers": {NAME: {"auc", "auc_se", "regret": {t: mean}, "regret_se", "grids": {...}, "wall_s"}}}`.
    """
    from searchers import SEARCHERS

    loaded = [load_grid(path) for path in grids]
    for grid in loaded:
        if trials > len(grid.values):
            raise UserError.at(
                "--trials",
                f"{trials}: {grid.name} has only {len(grid.values)} rows; allowed: at most these",
                value=trials,
            )
    entries = parse_searchers(searchers)
    progress = Progress(quiet=quiet)
    folder = None
    if any(entry.name in SEARCHERS and "llm" in SEARCHERS[entry.name].wants(entry.options) for entry in entries):
        from raylora.models import resolve

        folder = str(resolve(llm, quiet=quiet))
    paths = {grid.name: str(_path(path)) for grid, path in zip(loaded, grids, strict=True)}
    learned = None
    if without is not None:
        from raylora.bench.prior import fit_prior

        learned = fit_prior(without)
    curves: dict[tuple[str, str], list[tuple[int, np.ndarray]]] = {}
    wall: dict[str, float] = {entry.label: 0.0 for entry in entries}
    work = [(entry, paths[grid.name], part) for entry in entries for grid in loaded for part in _parts(seeds, jobs)]
    done = 0
    context = multiprocessing.get_context("spawn")
    count = min(len(work), jobs or os.cpu_count() or 1)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread) as pool:
        futures = {
            pool.submit(_run_seeds, entry, path, part, trials, prior_shift, folder, learned): entry
            for entry, path, part in work
        }
        for future in as_completed(futures):
            entry = futures[future]
            name, found, seconds = future.result()
            curves.setdefault((entry.label, name), []).extend(found)
            wall[entry.label] += seconds
            done += 1
            progress.say(f"[{done}/{len(work)}] {entry.label} on {name}: {len(found)} seeds, {seconds:.0f} s")
    result = {}
    for entry in entries:
        ordered = {
            grid.name: np.array([curve for _, curve in sorted(curves[entry.label, grid.name], key=lambda one: one[0])])
            for grid in loaded
        }
        per_grid = {name: _figures(table) for name, table in ordered.items()}
        # The mean over grids, seed by seed.
        both = _figures(np.mean(list(ordered.values()), axis=0))
        result[entry.label] = {**both, "grids": per_grid, "wall_s": round(wall[entry.label], 2)}
    return {"searchers": result}


def _path(path: str) -> Path:
    from raylora.data.grids import BUNDLED

    file = Path(path).expanduser()
    return file.absolute() if file.is_file() else BUNDLED / f"{path}.csv"


def _parts(seeds: int, jobs: int | None) -> Iterator[list[int]]:
    """Seeds in as many parts as there are processes, so that a model is loaded once per part."""
    count = max(1, min(seeds, jobs or os.cpu_count() or 1))
    for start in range(count):
        yield list(range(start, seeds, count))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _run_seeds(
    entry: Entry,
    path: str,
    seeds: Sequence[int],
    trials: int,
    prior_shift: float,
    llm: str | None,
    learned: Learned | None,
) -> tuple[str, list[tuple[int, np.ndarray]], float]:
    grid = load_grid(path)
    started = time.perf_counter()
    return (
        grid.name,
        [(s, run_once(entry, grid, s, trials, prior_shift, llm, learned)) for s in seeds],
        (time.perf_counter() - started),
    )


def run_once(
    entry: Entry,
    grid: Grid,
    seed: int,
    trials: int,
    prior_shift: float = 1.0,
    llm: str | None = None,
    learned: Learned | None = None,
) -> np.ndarray:
    """Regret after each trial, `(trials,)`.

    Args:
        learned: the prior to search with; None for the one that comes with the package.

    Raises:
        UserError: an option that the searcher does not have.
    """
    if entry.name == "stock":
        return run_stock(entry.options["preset"], grid, seed, trials)
    from searchers import SEARCHERS, make_searcher
    from trainables.variants import scale_rules

    known: dict[str, Any] = {
        "llm": llm,
        "local": True,
        "samples": grid.samples,
        "scales": scale_rules(),
        "prior_shift": prior_shift,
        "learned": learned,
        "parameters": grid.parameters,
        "family": grid.family,
    }
    taken = SEARCHERS[entry.name].options()
    options = {**{name: value for name, value in known.items() if name in taken}, **entry.options}
    try:
        searcher = make_searcher(entry.name, space=grid.space, metric="accuracy", mode="max", seed=seed, **options)
    except ValueError as error:
        raise UserError.around(f"--searchers: {entry.label}: ", error, field="--searchers", value=entry.label) from None
    searcher.exclude(set(range(len(grid.space))) - set(grid.values))
    regret = np.zeros(trials)
    best = -np.inf
    for t in range(trials):
        config = searcher.suggest(f"t{t}")
        if isinstance(config, dict):
            index = grid.nearest(grid.space.encode(config))
            result = {"accuracy": grid.values[index], "accuracy_se": grid.errors.get(index, 0.0)}
            if grid.samples is not None:
                result["samples"] = grid.samples
            searcher.on_trial_complete(f"t{t}", result)
            best = max(best, grid.values[index])
        regret[t] = (grid.best - best) / (grid.best - grid.median)
    return regret


def _figures(table: np.ndarray) -> dict[str, Any]:
    """Mean figures of regret curves `(seeds, trials)`, with their standard errors over the seeds."""
    seeds, trials = table.shape

    def error(values: np.ndarray) -> float:
        return float(values.std(ddof=1) / seeds**0.5) if seeds > 1 else float("nan")

    at = [t for t in REPORTED if t <= trials]
    auc = table.mean(axis=1)
    return {
        "auc": float(auc.mean()),
        "auc_se": None if seeds < 2 else error(auc),
        "regret": {str(t): float(table[:, t - 1].mean()) for t in at},
        "regret_se": {str(t): None if seeds < 2 else error(table[:, t - 1]) for t in at},
    }
