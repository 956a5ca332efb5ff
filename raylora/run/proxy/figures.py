"""What the scores on a part of the rows say of those on all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raylora.metrics.statistics import bootstrap_interval, pearson, spearman
from raylora.run.proxy.record import Part, Record, endings, seconds
from raylora.run.trials import trial_status, with_both_alphas
from trainables.journal import Ending, Knobs

# Of the intervals.
LEVEL = 0.95


def figures(folder: Path, record: Record, parts: Sequence[Part], recipes: Sequence[Knobs]) -> dict[str, Any]:
    """How each part's scores go with those of the reference, which is the last part; ready for JSON.

    Recipes that failed, or that somebody stopped, on either of the two are left out there; those that diverged count
    with the worst score.

    Returns:
        `metric`, `mode`, `rows`; `reference` (`fraction`, `rows`, `samples`, `seconds`); `recipes` (each its `config`,
        and under the parts' names its `scores` and `losses`, null where it has none); `chance`, the regret of a recipe
        drawn at random; `proxies`, for each other part `select`, `fraction`, `rows`, `samples`, `recipes` (compared),
        `pearson` and `spearman` (each `value`, `low`, `high`; null where it is not defined), `chosen`
        (a configuration), `regret`, and `time`, its part of the reference's seconds.
    """
    *proxies, reference = parts
    ends = {part: endings(folder, part, recipes) for part in parts}
    scores = {part: [_score(end, record.metric) for end in ends[part]] for part in parts}
    losses = {part: [_score(end, "validation_loss") for end in ends[part]] for part in parts}
    spent = {part: seconds(folder, part, recipes) for part in parts}
    whole = np.array([value for value in scores[reference] if value is not None])
    sign = 1.0 if record.mode == "max" else -1.0

    def told(part: Part) -> dict[str, Any]:
        size = record.sizes[part.name]
        return {"fraction": part.fraction, "rows": size["rows"], "samples": size["samples"]}

    def compared(part: Part) -> dict[str, Any]:
        at = [i for i in range(len(recipes)) if scores[part][i] is not None and scores[reference][i] is not None]
        # Ties of the proxy go to the lower validation loss, as they do where a run picks its best trial.
        table = np.array([[sign * _number(scores[p][i]) for p in (part, reference)] for i in at]).reshape(len(at), 2)
        by_loss = [losses[part][i] for i in at]
        chosen = _best(table[:, 0], by_loss)
        return {
            "select": part.select,
            **told(part),
            "recipes": len(at),
            "pearson": _with_interval(table, pearson),
            "spearman": _with_interval(table, spearman),
            "chosen": None if chosen is None else with_both_alphas(recipes[at[chosen]]),
            "regret": None if chosen is None else float(table[:, 1].max() - table[chosen, 1]),
            "time": spent[part] / spent[reference] if spent[reference] else None,
        }

    return {
        "metric": record.metric,
        "mode": record.mode,
        "rows": record.rows,
        "reference": {**told(reference), "seconds": round(spent[reference], 1)},
        "recipes": [
            {
                "config": with_both_alphas(recipe),
                "scores": {part.name: scores[part][i] for part in parts},
                "losses": {part.name: losses[part][i] for part in parts},
                "status": {part.name: trial_status(ends[part][i]) for part in parts},
            }
            for i, recipe in enumerate(recipes)
        ],
        "chance": float((sign * whole).max() - (sign * whole).mean()) if len(whole) else None,
        "proxies": [compared(part) for part in proxies],
    }


def _score(end: Ending | None, name: str) -> float | None:
    if end is None or end.failed or end.stopped:
        return None
    return end.metrics.get(name)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _best(values: np.ndarray, losses: Sequence[float | None]) -> int | None:
    """The index of the largest value; of equal ones, that of the lowest loss."""
    if not len(values):
        return None
    known = [math.inf if loss is None else loss for loss in losses]
    return max(range(len(values)), key=lambda i: (values[i], -known[i]))


def _with_interval(table: np.ndarray, of: Callable[[np.ndarray, np.ndarray], float]) -> dict[str, float] | None:
    """A correlation of the two columns and its bootstrap interval over the rows; None where one of them is constant."""

    def value(rows: np.ndarray) -> float:
        return of(rows[:, 0], rows[:, 1])

    found = value(table) if len(table) > 2 else math.nan
    interval = None if math.isnan(found) else bootstrap_interval(table, value, level=LEVEL)
    return None if interval is None else {"value": found, "low": interval[0], "high": interval[1]}
