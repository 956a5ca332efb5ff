"""A run's trials as its journal has them: the table, and which are best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raylora.errors import UserError
from searchers.surrogate.link import LOSS, Judgement, judge, loss_of
from trainables.journal import Ending, Journal, Knobs

# Of a trial's metrics, what its status says already.
_TOLD = ("done", "diverged")


def trial_table(run_dir: str | Path) -> pd.DataFrame:
    """One line per trial of the journal, in order of start.

    Columns: `trial`, `status` (finished, stopped, diverged, infeasible, failed or unfinished), the knobs with alpha and
    alpha_ratio both, then the metrics.
    """
    journal = Journal(run_dir)
    concluded = journal.concluded()
    lines = []
    for number, (key, start) in enumerate(journal.started().items(), start=1):
        end = concluded.get(key)
        metrics = {} if end is None else {k: v for k, v in end.metrics.items() if k not in _TOLD}
        lines.append(
            {"trial": number, "key": key, "status": trial_status(end), **with_both_alphas(start.config), **metrics}
        )
    return pd.DataFrame(lines)


def write_trials(run_dir: str | Path) -> Path:
    """`trials.csv` from the journal."""
    path = Path(run_dir) / "trials.csv"
    trial_table(run_dir).to_csv(path, index=False)
    return path


def trial_status(end: Ending | None) -> str:
    """finished, stopped, diverged, failed or unfinished."""
    if end is None:
        return "unfinished"
    if end.failed:
        return end.kind
    return "diverged" if end.diverged else "stopped" if end.stopped else "finished"


def with_both_alphas(config: Knobs) -> dict[str, Any]:
    """The configuration with `alpha` and `alpha_ratio` (alpha / rank) both spelled out."""
    config = dict(config)
    rank = config.get("rank")
    if rank and "alpha_ratio" in config:
        config.setdefault("alpha", config["alpha_ratio"] * rank)
    elif rank and "alpha" in config:
        config.setdefault("alpha_ratio", config["alpha"] / rank)
    return config


@dataclass(frozen=True)
class Ranking:
    """A run's trials, best first, by the metric that they are believed to have.

    Attributes:
        ends: those that ran their whole budget and did not diverge; where nothing did, those stopped early.
        judgement: of them, at the places in `order`.
    """

    ends: list[Ending]
    judgement: Judgement
    order: list[int]

    @property
    def best(self) -> Ending:
        return self.ends[0]

    def chance(self, key: str) -> float | None:
        """Probability that the best is better than another of them; None where that is not known."""
        places = [at for end, at in zip(self.ends, self.order, strict=True) if end.key == key]
        return self.judgement.chance(self.order[0], places[0]) if places and places[0] != self.order[0] else None


def rank_trials(run_dir: str | Path, metric: str, mode: str) -> Ranking:
    """The trials of a run by the posterior mean of their metric: what it is without the luck of the validation rows.

    Where the metric has errors, or is the same everywhere, the validation loss counts too: see
    `searchers.surrogate.link`. Ties go to the lower one.

    Raises:
        UserError: No trial has a result.
    """
    ends = list(Journal(run_dir).concluded().values())
    scored = [end for end in ends if end.metrics.get(metric) is not None and not end.diverged]
    whole = [end for end in scored if not end.stopped] or scored
    if not whole:
        failed = [end.message for end in ends if end.failed]
        reason = f"the first failure was: {failed[0]}" if failed else "all of them diverged; try lower learning rates"
        raise UserError(f"search.trials: none of the {len(ends)} trials has a result; {reason}", field="search.trials")
    found, losses = judge_trials(whole, metric, mode), _losses(whole)
    order = np.lexsort((losses, -_values(whole, metric, mode), -found.merit)).tolist()
    return Ranking([whole[at] for at in order], found, order)


def judge_trials(ends: Sequence[Ending], metric: str, mode: str) -> Judgement:
    """What trials that have the metric are worth by it and their validation loss, larger is better."""
    values = _values(ends, metric, mode)
    if metric == LOSS:
        # Its error is that of the rows, which all trials share: nothing is known of the differences.
        return judge(values, np.zeros(len(ends)), np.full(len(ends), np.nan))
    return judge(values, np.array([end.metrics.get(f"{metric}_se") or 0.0 for end in ends]), _losses(ends))


def _values(ends: Sequence[Ending], metric: str, mode: str) -> np.ndarray:
    return np.array([end.metrics[metric] for end in ends], dtype=float) * (1.0 if mode == "max" else -1.0)


def _losses(ends: Sequence[Ending]) -> np.ndarray:
    """NaN where a trial reported none."""
    return np.array([loss_of(end.metrics) for end in ends], dtype=float)


def best_trial(run_dir: str | Path, metric: str, mode: str) -> Ending:
    """The first of `rank_trials`."""
    return rank_trials(run_dir, metric, mode).best
