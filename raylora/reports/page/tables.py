"""What the charts show, as tables: for readers without JavaScript, and for those who want figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raylora.reports.page.datasets import COSTS, Knob, Row, rows_of_knob
from raylora.reports.page.facts import RunFacts, number
from raylora.reports.page.words import Table, figure, table

# Trials with their own line in the table of curves.
_MOST_CURVES = 400


def progress_table(rows: Sequence[Row]) -> Table:
    """Each new best."""
    better = [row for row in rows if row["better"]]
    cells = [[r["run"], r["count"], f"{r['minutes']:.1f}", f"{r['best']:.4g}", r["recipe"]] for r in better]
    return table(["run", "after trials", "minutes", "best", "recipe"], cells)


def rate_table(facts: Sequence[RunFacts], trials: Sequence[Row]) -> Table | None:
    """Best rates as the sweep's table has them, by run."""
    from raylora.reports.sweep import Sweep, best_rates

    rows = []
    for run in facts:
        records = _by_rate(run)
        if not records:
            continue
        for one in best_rates(Sweep({"metric": run.metric, "mode": run.mode}, records)):
            mine = [row for row in trials if row["run"] == run.name and row["variant"] == one.variant]
            lost = sum(row["status"] in ("diverged", "failed") for row in mine)
            edge = " (at an end)" if one.edge else ""
            cells = [
                f"{one.rate:.2g}{edge}",
                figure(one.score, one.error),
                f"{one.loss_rate:.2g}",
                f"{one.loss:.4g}",
            ]
            rows.append([run.name, one.variant, *cells, len(mine), lost or ""])
    columns = ["run", "variant", "best rate", "value", "rate of lowest loss", "lowest loss", "trials", "lost"]
    return table(columns, rows) if rows else None


def _by_rate(run: RunFacts) -> list[dict[str, object]]:
    """A record per variant and rate: the best value and the lowest loss of the trials there."""
    found: dict[tuple[str, float], dict[str, Any]] = {}
    for trial in run.trials:
        value, loss = run.value(trial), number(trial.figures.get("validation_loss"))
        if value is None or loss is None or not {"variant", "learning_rate"} <= set(trial.config):
            continue
        at = (str(trial.config["variant"]), float(trial.config["learning_rate"]))
        config = {"variant": at[0], "learning_rate": at[1]}
        record = {"config": config, "diverged": False, **trial.figures}
        known = found.setdefault(at, record)
        least = min(loss, known["validation_loss"])
        better = record if run.sign * value > run.sign * known[run.metric] else known
        found[at] = {**better, "validation_loss": least}
    return list(found.values())


def front_table(trials: Sequence[Row]) -> Table:
    """The trials on each cost's front, the cheapest first."""
    rows = []
    for cost, title in COSTS.items():
        front = sorted((row for row in trials if row.get(f"front_{cost}")), key=lambda row: row[cost])
        rows += [[row["run"], title, f"{row[cost]:,.4g}", f"{row['value']:.4g}", row["recipe"]] for row in front]
    return table(["run", "cost", "", "value", "recipe"], rows, "The fronts")


def curve_table(curves: Sequence[Row]) -> Table | None:
    """Validation losses of the trials with more than one report."""
    by_trial: dict[str, list[Row]] = {}
    for row in curves:
        by_trial.setdefault(row["key"], []).append(row)
    rows = []
    for points in list(by_trial.values())[:_MOST_CURVES]:
        if len(points) < 2:
            continue
        told = ", ".join(
            f"{row['samples']:g}: {row['loss']:.4g}"
            for row in points
            if row["loss"] is not None and row["samples"] is not None
        )
        rows.append([points[0]["run"], points[0]["trial"], points[0]["recipe"], told])
    return table(["run", "trial", "recipe", "samples: validation loss"], rows) if rows else None


def importance_table(rows: Sequence[Row]) -> Table:
    """Each knob by both methods."""
    return table(
        ["run", "knob", "method", "importance"],
        [[row["run"], row["knob"], row["method"], f"{row['importance']:.3f}"] for row in rows],
    )


def belief_table(rows: Sequence[Row]) -> Table:
    """Each trial predicted from the others."""
    cells = [
        [
            row["run"],
            row["trial"],
            f"{row['observed']:.4g}",
            f"{row['predicted']:.4g}",
            f"{row['low']:.4g} to {row['high']:.4g}",
        ]
        for row in rows
    ]
    return table(["run", "trial", "observed", "predicted", "two standard deviations"], cells)


def knob_table(facts: Sequence[RunFacts], trials: Sequence[Row], knobs: Sequence[Knob]) -> Table:
    """Each value of each knob: trials, best, median."""
    rows = [row for knob in knobs for row in rows_of_knob(trials, knob, facts[0].sign)]
    return table(["knob", "value", "trials with a value", "best", "median", "diverged, failed or unfinished"], rows)


def trial_table(facts: Sequence[RunFacts], trials: Sequence[Row], knobs: Sequence[Knob]) -> dict[str, Any]:
    """Every trial; a row has the `key` by which the page finds it."""
    several = len(facts) > 1
    names = [knob.name for knob in knobs]
    columns = [
        *(["run"] if several else []),
        "trial",
        "ended",
        *names,
        "value",
        "±",
        "loss",
        "time",
        "parameters",
        "note",
    ]
    rows = []
    for row in trials:
        told = [_short(row[knob.column]) for knob in knobs]
        shown = [f"{row[name]:.4g}" if row[name] is not None else "" for name in ("value", "error", "loss")]
        time_ = "" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        size = "" if row["parameters"] is None else f"{row['parameters']:,.0f}"
        cells = [*([row["run"]] if several else []), str(row["trial"]), row["status"], *told, *shown, time_, size]
        rows.append({"key": row["key"], "cells": [*cells, row["message"][:300]]})
    return {"columns": columns, "rows": rows}


def _short(value: object) -> str:
    """A knob's value in a cell."""
    known = number(value)
    return str(value or "") if known is None else f"{known:.4g}"
