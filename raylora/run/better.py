"""How sure it is that the found recipe is better than others."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError
from raylora.run.predictions import LABELS, read_predictions
from raylora.run.summary import Better
from raylora.run.trials import Ranking

if TYPE_CHECKING:
    import pandas as pd

_NAMES = {"default": "the default recipe", "runner_up": "the runner-up"}


@dataclass(frozen=True)
class Difference:
    """Found recipe minus another one on test; larger is better whatever the metric's direction.

    Attributes:
        error: standard error; of the rows' paired differences where each row has a score of its own and there is one
            seed, else of two independent means.
        chance: that the found recipe is the better one (normal).
    """

    against: str
    value: float
    error: float | None
    chance: float | None
    paired: bool


def differences_on_test(
    summary: Mapping[str, Any], mode: str, seeds: int, table: pd.DataFrame | None
) -> list[Difference]:
    """Against the default recipe and against the base, as far as the summary has them.

    Args:
        seeds: of the final stage.
        table: the answers to test, see `read_predictions`; None where there are none.
    """
    best = summary.get("best", {})
    mine = _number(best.get("test"))
    found = []
    for label in ("default", "base"):
        entry = summary.get(label, {})
        other = _number(entry.get("test"))
        if mine is None or other is None:
            continue
        value = mine - other if mode == "max" else other - mine
        error = _paired(table, LABELS[label], mine - other) if seeds == 1 else None
        paired = error is not None
        if error is None:
            errors = [_number(best.get("test_se")), _number(entry.get("test_se"))]
            known = [one for one in errors if one is not None]
            error = math.hypot(*known) if len(known) == 2 or (known and label == "base") else None
        chance = None if not error else statistics.NormalDist().cdf(value / error)
        found.append(Difference(label, value, error, chance, paired))
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _paired(table: pd.DataFrame | None, other: str, told: float) -> float | None:
    """Standard error of the mean difference over rows, where the rows' mean is the metric's difference."""
    if table is None or not {"found_score", f"{other}_score"} <= set(table):
        return None
    scores = table[["found_score", f"{other}_score"]].astype(float)  # all None where a row has no score of its own
    steps = (scores["found_score"] - scores[f"{other}_score"]).dropna()
    if len(steps) < 2 or abs(float(steps.mean()) - told) > 1e-6 + 0.01 * abs(told):
        return None
    return float(steps.std(ddof=1)) / math.sqrt(len(steps)) or None


def how_sure(folder: Path, outcome: Mapping[str, Any], mode: str, seeds: int, ranking: Ranking, default: str) -> Better:
    """With which probability the found recipe is better than the default one and the runner-up, as far as it is known.

    Args:
        folder: of the run, for the answers to test.
        outcome: of the run, as `FinalSummary` or `OnlyBest` has it.
        seeds: of the final stage.
        ranking: of the trials; its best is the found recipe.
        default: key of the default recipe.
    """
    table = None
    # There was no final stage, it has several test sets, or a file was torn by a kill.
    with contextlib.suppress(UserError, OSError, ValueError, KeyError):
        table = read_predictions(folder)
    on_test = {one.against: one.chance for one in differences_on_test(outcome, mode, seeds, table)}
    over_default = on_test["default"] if "default" in on_test else ranking.chance(default)
    over_next = ranking.chance(ranking.ends[1].key) if len(ranking.ends) > 1 else None
    found: Better = {}
    if over_default is not None and ranking.best.key != default:
        found["default"] = over_default
    if over_next is not None:
        found["runner_up"] = over_next
    return found


def in_words(better: Mapping[str, float]) -> str:
    """`better than the default recipe with probability 0.93, than the runner-up 0.61`; empty where nothing is known."""
    told = [(name, better[key]) for key, name in _NAMES.items() if key in better]
    parts = [f"than {name} {'with probability ' * (not at)}{_told(chance)}" for at, (name, chance) in enumerate(told)]
    return f"better {', '.join(parts)}" if parts else ""


def _told(chance: float) -> str:
    return "over 0.99" if chance > 0.995 else "below 0.01" if chance < 0.005 else f"{chance:.2f}"
