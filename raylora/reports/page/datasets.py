"""The named tables that the charts draw from: plain rows, one set for all runs of a page.

`key` names a trial on the page (`run#number`); rows that have one follow the page's filter and selection.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raylora.reports.page.facts import RunFacts, Trial, number
from raylora.reports.page.words import recipe

Row = dict[str, Any]

# More different values of a knob than these are gathered into as many bins.
_BINS = 12
# What one trial costs, by column: how it is told.
COSTS = {"seconds": "training and scoring, s", "memory_gb": "peak memory, GB", "parameters": "trainable parameters"}
_SHOWN = ("finished", "stopped")


@dataclass(frozen=True)
class Knob:
    """A knob of the runs together.

    Attributes:
        column: where `trials` has its value; `column + "_cell"` has its bin. values: sorted. numeric: all numbers.
        log: whether a logarithmic axis shows them better. cells: labels of the bins in order.
    """

    name: str
    column: str
    values: Sequence[Any]
    numeric: bool
    log: bool
    cells: Sequence[str]
    label: Callable[[Any], str]


def page_key(run: RunFacts, trial: Trial) -> str:
    """What names a trial on the page."""
    return f"{run.name}#{trial.number}"


def find_knobs(runs: Sequence[RunFacts]) -> list[Knob]:
    """Knobs that took more than one value in these runs, in the order of the space."""
    names = dict.fromkeys(name for run in runs for name in run.knobs())
    found: list[Knob] = []
    for name in names:
        values = [_plain(trial.config[name]) for run in runs for trial in run.trials if name in trial.config]
        different = list(dict.fromkeys(values))
        if len(different) < 2:
            continue
        numeric = all(number(value) is not None for value in different)
        ordered = sorted(different) if numeric else sorted(different, key=str)
        log = numeric and ordered[0] > 0 and ordered[-1] / ordered[0] >= 8
        label = _labels(ordered, log) if numeric else str
        cells = list(dict.fromkeys(label(value) for value in ordered))
        found.append(Knob(name, f"k{len(found)}", ordered, numeric, log, cells, label))
    return found


def _plain(value: object) -> Any:
    """A value that can be a dictionary's key and a cell: lists of matrix types become text, truth values words."""
    if isinstance(value, list | dict):
        return ", ".join(map(str, value))
    return str(value) if isinstance(value, bool) or value is None else value


def _labels(ordered: Sequence[float], log: bool) -> Callable[[Any], str]:
    if len(ordered) <= _BINS:
        return lambda value: f"{value:g}"
    low, high = ordered[0], ordered[-1]
    scale: Callable[[float], float] = math.log if log else float
    back: Callable[[float], float] = math.exp if log else float
    width = (scale(high) - scale(low)) / _BINS

    def label(value: Any) -> str:
        bin_ = min(_BINS - 1, int((scale(value) - scale(low)) / width))
        return f"{back(scale(low) + bin_ * width):.2g} to {back(scale(low) + (bin_ + 1) * width):.2g}"

    return label


def trial_rows(runs: Sequence[RunFacts], knobs: Sequence[Knob]) -> list[Row]:
    """A row for each trial: what it was, how it ended, what it cost, and whether it lies on a front."""
    rows = []
    for run in runs:
        begin = min((trial.begin for trial in run.trials), default=0.0)
        mine = [_trial_row(run, trial, begin, knobs) for trial in run.trials]
        ended = sorted((trial for trial in run.trials if trial.over), key=lambda trial: trial.end)
        for count, trial in enumerate(ended, start=1):
            mine[trial.number - 1]["count"] = count
        scored = [row for row in mine if row["value"] is not None]
        _rank(scored, run.sign)
        for cost in COSTS:
            for row in front(scored, cost, run.sign):
                row[f"front_{cost}"] = True
        rows += mine
    return rows


def _rank(rows: Sequence[Row], sign: float) -> None:
    """Gives each row its `place`, 1 the best, and its `share`, 0 the best to 1; rows of one value share both."""
    ordered = sorted(rows, key=lambda row: -sign * row["value"])
    first = 0
    for _, group in itertools.groupby(ordered, key=lambda row: row["value"]):
        equal = list(group)
        middle = first + (len(equal) - 1) / 2
        for row in equal:
            row["place"] = first + 1
            row["share"] = middle / (len(ordered) - 1) if len(ordered) > 1 else 0.0
        first += len(equal)


def _trial_row(run: RunFacts, trial: Trial, begin: float, knobs: Sequence[Knob]) -> Row:
    told = trial.figures
    trained = number(told.get("touched_parameters")) or number(told.get("trainable_parameters"))
    value = run.value(trial)
    row: Row = {
        "key": page_key(run, trial),
        "run": run.name,
        "trial": trial.number,
        "variant": str(trial.config.get("variant", "")),
        "status": trial.status,
        "recipe": recipe(trial.config),
        "message": trial.message,
        "value": value,
        "error": None if value is None else number(told.get(f"{run.metric}_se")),
        "loss": None if trial.status == "diverged" else number(told.get("validation_loss")),
        "rate": number(trial.config.get("learning_rate")),
        "rank": number(trial.config.get("rank")),
        "seconds": trial.seconds if told else None,
        "memory_gb": number(told.get("peak_memory_gb")),
        "parameters": trained,
        "samples": number(told.get("samples")),
        "minutes": (trial.end - begin) / 60,
    }
    for knob in knobs:
        given = _plain(trial.config.get(knob.name))
        row[knob.column] = given if knob.name in trial.config else None
        row[f"{knob.column}_cell"] = knob.label(given) if knob.name in trial.config else None
    return row


def front(rows: Sequence[Row], cost: str, sign: float) -> list[Row]:
    """The rows that no other beats in value and cost at once (Pareto), the cheapest first."""
    known = [row for row in rows if row["value"] is not None and row.get(cost) is not None]
    kept: list[Row] = []
    for row in sorted(known, key=lambda row: (row[cost], -sign * row["value"])):
        if not kept or sign * row["value"] > sign * kept[-1]["value"]:
            kept.append(row)
    return kept


def progress_rows(runs: Sequence[RunFacts]) -> list[Row]:
    """The best so far after each trial that ended, over trials, minutes and samples trained."""
    rows: list[Row] = []
    for run in runs:
        ended = sorted((trial for trial in run.trials if trial.over), key=lambda trial: trial.end)
        begin = min((trial.begin for trial in run.trials), default=0.0)
        best: float | None = None
        samples = 0.0
        for count, trial in enumerate(ended, start=1):
            value = run.value(trial)
            samples += number(trial.figures.get("samples")) or 0.0
            better = value is not None and (best is None or run.sign * value > run.sign * best)
            best = value if better else best
            row = {"run": run.name, "count": count, "minutes": (trial.end - begin) / 60, "samples": samples}
            rows.append(
                {**row, "best": best, "better": better, "by": page_key(run, trial), "recipe": recipe(trial.config)}
            )
    return rows


def curve_rows(runs: Sequence[RunFacts]) -> tuple[list[Row], list[Row]]:
    """Reports of all trials, and marks on them: stopped, diverged, failed, paused, resumed."""
    curves: list[Row] = []
    marks: list[Row] = []
    for run in runs:
        begin = min((trial.begin for trial in run.trials), default=0.0)
        for trial in run.trials:
            shared = {"key": page_key(run, trial), "run": run.name, "trial": trial.number}
            shared |= {"variant": str(trial.config.get("variant", "")), "recipe": recipe(trial.config)}
            mine: list[Row] = [
                {
                    **shared,
                    "samples": point.samples,
                    "minutes": (point.time - begin) / 60,
                    "value": number(point.figures.get(run.metric)),
                    "loss": number(point.figures.get("validation_loss")),
                    "training_loss": number(point.figures.get("loss")),
                }
                for point in trial.points
            ]
            curves += mine
            if not mine:
                continue
            if trial.status in ("stopped", "diverged", "failed"):
                marks.append({**mine[-1], "what": trial.status})
            for when, _step in trial.resumed:
                moment = (when - begin) / 60
                before = [row for row in mine if row["minutes"] <= moment]
                after = [row for row in mine if row["minutes"] > moment]
                if before:
                    marks.append({**before[-1], "what": "paused"})
                if after:
                    marks.append({**after[0], "what": "resumed"})
    return curves, marks


def timeline_rows(runs: Sequence[RunFacts]) -> list[Row]:
    """When each host trained which trial, minutes since the run's first."""
    rows = []
    for run in runs:
        begin = min((trial.begin for trial in run.trials), default=0.0)
        last = max((float(row.get("time") or 0) for row in run.rows), default=0.0)
        for trial in run.trials:
            for place, stretch in enumerate(trial.stretches):
                final = place == len(trial.stretches) - 1
                end = max(stretch.end, last) if final and not trial.over else stretch.end
                rows.append(
                    {
                        "key": page_key(run, trial),
                        "run": run.name,
                        "host": stretch.host if len(runs) == 1 else f"{run.name} {stretch.host}",
                        "begin": (stretch.begin - begin) / 60,
                        "end": (end - begin) / 60,
                        "status": trial.status if final else "interrupted",
                        "recipe": recipe(trial.config),
                        "trial": trial.number,
                    }
                )
    return rows


def distribution_rows(rows: Sequence[Row]) -> list[Row]:
    """Share of a run's scored trials at or below each value (the empirical distribution), by run and by variant."""
    found = []
    for by in ("run", "variant"):
        groups: dict[str, list[float]] = {}
        for row in rows:
            if row["value"] is not None:
                groups.setdefault(row[by], []).append(row["value"])
        for name, values in groups.items():
            steps = [min(values), *sorted(values)]
            found += [
                {"by": by, "group": name, "value": value, "share": place / len(values)}
                for place, value in enumerate(steps)
            ]
    return found


def parallel_rows(runs: Sequence[RunFacts], rows: Sequence[Row], knobs: Sequence[Knob]) -> tuple[list[Row], list[Row]]:
    """Each trial's place, 0 to 1, on an axis for each knob and one for the metric; and the labels of the axes."""
    scored = [row for row in rows if row["value"] is not None]
    if not scored:
        return [], []
    low, high = min(row["value"] for row in scored), max(row["value"] for row in scored)
    metric = runs[0].metric or "metric"
    lines, labels = [], []
    for knob in knobs:
        place = {cell: (i + 0.5) / len(knob.cells) for i, cell in enumerate(knob.cells)}
        labels += [{"axis": knob.name, "place": at, "label": cell} for cell, at in place.items()]
        lines += [
            _on_axis(row, knob.name, place.get(row[f"{knob.column}_cell"]), row[f"{knob.column}_cell"])
            for row in scored
        ]
    for at in (0.0, 0.5, 1.0) if high > low else (0.5,):
        labels.append({"axis": metric, "place": at, "label": f"{low + at * (high - low):.3g}"})
    lines += [
        _on_axis(row, metric, (row["value"] - low) / (high - low) if high > low else 0.5, f"{row['value']:.4g}")
        for row in scored
    ]
    order = {axis: at for at, axis in enumerate(dict.fromkeys(line["axis"] for line in lines))}
    return [{**line, "at": order[line["axis"]]} for line in lines if line["place"] is not None], labels


def _on_axis(row: Row, axis: str, place: float | None, label: object) -> Row:
    shared = {name: row[name] for name in ("key", "run", "variant", "recipe", "value", "trial")}
    return {**shared, "axis": axis, "place": place, "label": label}


def rows_of_knob(rows: Sequence[Row], knob: Knob, sign: float) -> list[list[str]]:
    """For each value of a knob: how many trials, their best and their median."""
    table = []
    for cell in knob.cells:
        values = sorted(
            (row["value"] for row in rows if row[f"{knob.column}_cell"] == cell and row["value"] is not None),
            key=lambda value: -sign * value,
        )
        lost = sum(row[f"{knob.column}_cell"] == cell and row["status"] not in _SHOWN for row in rows)
        best = f"{values[0]:.4g}" if values else ""
        middle = f"{values[len(values) // 2]:.4g}" if values else ""
        table.append([knob.name, cell, str(len(values)), best, middle, str(lost) if lost else ""])
    return table
