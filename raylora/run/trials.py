"""A run's trials as its journal has them: the table, the best one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from raylora.errors import UserError
from trainables.journal import Journal

HIDDEN = ("event", "key", "time", "config", "message", "done", "host")


def trial_table(run_dir: str | Path) -> pd.DataFrame:
    """One line per trial of the journal, in order of start.

    Columns: `trial`, `status` (finished, stopped, diverged, failed or unfinished), the knobs with alpha and
    alpha_ratio both, then the metrics.
    """
    journal = Journal(run_dir)
    concluded = journal.concluded()
    lines = []
    for number, (key, start) in enumerate(journal.started().items(), start=1):
        end = concluded.get(key)
        metrics = {} if end is None else {k: v for k, v in end.items() if k not in (*HIDDEN, "stopped", "diverged")}
        lines.append(
            {"trial": number, "key": key, "status": _status(end), **with_both_alphas(start["config"]), **metrics}
        )
    return pd.DataFrame(lines)


def write_trials(run_dir: str | Path) -> Path:
    """`trials.csv` from the journal."""
    path = Path(run_dir) / "trials.csv"
    trial_table(run_dir).to_csv(path, index=False)
    return path


def _status(end: Mapping[str, Any] | None) -> str:
    if end is None:
        return "unfinished"
    if end["event"] == "error":
        return "failed"
    return "diverged" if end.get("diverged") else "stopped" if end.get("stopped") else "finished"


def with_both_alphas(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with `alpha` and `alpha_ratio` (alpha / rank) both spelled out."""
    config = dict(config)
    rank = config.get("rank")
    if rank and "alpha_ratio" in config:
        config.setdefault("alpha", config["alpha_ratio"] * rank)
    elif rank and "alpha" in config:
        config.setdefault("alpha_ratio", config["alpha"] / rank)
    return config


def best_trial(run_dir: str | Path, metric: str, mode: str) -> dict[str, Any]:
    """The journal's best line among trials that ran their whole budget and did not diverge.

    Ties go to the lower validation loss. Trials stopped early compare only where nothing ran to its end.

    Raises:
        UserError: No trial has a result.
    """
    rows = list(Journal(run_dir).concluded().values())
    scored = [r for r in rows if r["event"] == "finish" and r.get(metric) is not None and not r.get("diverged")]
    whole = [r for r in scored if not r.get("stopped")] or scored
    if not whole:
        failed = [r["message"] for r in rows if r["event"] == "error"]
        reason = f"the first failure was: {failed[0]}" if failed else "all of them diverged; try lower learning rates"
        raise UserError(f"search.trials: none of the {len(rows)} trials has a result; {reason}")
    sign = 1.0 if mode == "max" else -1.0

    def merit(row: Mapping[str, Any]) -> tuple[float, float]:
        loss = row.get("validation_loss")
        return sign * row[metric], -(loss if loss is not None else float("inf"))

    return max(whole, key=merit)
