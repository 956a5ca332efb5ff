"""A run's trials as its journal has them: the table, the best one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from raylora.errors import UserError
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


def best_trial(run_dir: str | Path, metric: str, mode: str) -> Ending:
    """The best of a run's trials, among trials that ran their whole budget and did not diverge.

    Ties go to the lower validation loss. Trials stopped early compare only where nothing ran to its end.

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
    sign = 1.0 if mode == "max" else -1.0

    def merit(end: Ending) -> tuple[float, float]:
        value, loss = end.metrics[metric], end.metrics.get("validation_loss")
        assert value is not None
        return sign * value, -(loss if loss is not None else float("inf"))

    return max(whole, key=merit)
