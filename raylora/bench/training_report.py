"""Table and plot of the searches of `raylora bench training`: what the found recipe is worth, after each trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raylora.bench.records import markdown, mean, with_error
from raylora.bench.training import read_search
from raylora.errors import UserError
from raylora.spec.paths import output_stem

# What others are compared with.
BASELINE = "random"


@dataclass(frozen=True)
class Searches:
    """The searches of one searcher on one task.

    Attributes:
        found: figure on test of the recipe found after each trial, `(seeds, trials)`; +-inf while there is none.
        also: further metrics -> figures on test of the recipe found at the end, one per seed.
        samples: trained on after each trial, `(seeds, trials)`.
        seeds: in ascending order. mode: `min` or `max`.
        seconds: of the processor for training and scoring a trial, and for proposing one, means.
    """

    task: str
    searcher: str
    metric: str
    mode: str
    seeds: tuple[int, ...]
    found: np.ndarray
    also: Mapping[str, list[float]]
    samples: np.ndarray
    seconds: tuple[float, float]


def best_so_far(trials: Sequence[Mapping[str, Any]], metric: str, mode: str) -> list[int | None]:
    """The trial that is best on validation so far, after each trial; the earlier one wins ties."""
    sign = 1.0 if mode == "min" else -1.0
    best, number, found = math.inf, None, []
    for i, trial in enumerate(trials):
        value = trial["validation"].get(metric)
        if value is not None and not trial["diverged"] and sign * value < best:
            best, number = sign * value, i
        found.append(number)
    return found


def found_after(trials: Sequence[Mapping[str, Any]], metric: str, mode: str) -> list[float]:
    """The figure on test of the best trial so far, after each trial; infinitely bad while there is none."""
    worst = math.inf if mode == "min" else -math.inf
    figures = [trial["test"].get(metric) for trial in trials]
    return [
        worst if number is None or figures[number] is None else float(figures[number])
        for number in best_so_far(trials, metric, mode)
    ]


def read_searches(folder: str | Path) -> list[Searches]:
    """The searches of a folder by task and searcher, each cut to the length that all of a task have.

    Raises:
        UserError: no search there, or searches of one task that cannot be compared.
    """
    records = [read_search(path) for path in sorted(Path(folder).expanduser().glob("*.json"))]
    if not records:
        raise UserError.at(
            "FOLDER", f"{folder}: no search there; measure with `raylora bench training`", value=str(folder)
        )
    searches = []
    for task in sorted({record["task"] for record in records}):
        of_task = [record for record in records if record["task"] == task]
        if any(record["about"] != of_task[0]["about"] for record in of_task):
            raise UserError.at(
                "FOLDER", f"{folder}: the searches of {task} differ; keep one folder for each", value=task
            )
        length = min(len(record["trials"]) for record in of_task)
        for searcher in dict.fromkeys(record["searcher"] for record in of_task):
            own = sorted((r for r in of_task if r["searcher"] == searcher), key=lambda r: int(r["seed"]))
            searches.append(_searches(own, length))
    return searches


def _searches(records: Sequence[Mapping[str, Any]], length: int) -> Searches:
    first = records[0]
    cut = [record["trials"][:length] for record in records]
    flat = [trial for trials in cut for trial in trials]
    ends = [trials[best_so_far(trials, first["metric"], first["mode"])[-1] or 0]["test"] for trials in cut]
    names = [name for name in ends[0] if f"{name}_se" in ends[0] and name != first["metric"]]
    trial_s = mean([trial["train_s"] + trial["score_s"] for trial in flat])
    return Searches(
        task=first["task"],
        searcher=first["searcher"],
        metric=first["metric"],
        mode=first["mode"],
        seeds=tuple(int(record["seed"]) for record in records),
        found=np.array([found_after(trials, first["metric"], first["mode"]) for trials in cut]),
        also={name: [float("nan" if end.get(name) is None else end[name]) for end in ends] for name in names},
        samples=np.cumsum([[trial["samples"] for trial in trials] for trials in cut], axis=1),
        seconds=(trial_s, mean([trial["suggest_s"] for trial in flat])),
    )


def training_table(searches: Sequence[Searches]) -> list[list[str]]:
    """A header and a row per task and searcher: means over seeds ± their standard error."""
    trials = max(one.found.shape[1] for one in searches)
    at = sorted({t for t in (1, 2, 3, 5, 10, 20, 30, trials) if t <= trials})
    compared = (f"better than {BASELINE} at the end", f"share of the samples to {BASELINE}'s end")
    after = [f"after {t} trials" for t in at]
    rows = [["task", "searcher", "seeds", *after, *compared, "also, at the end", "a trial, s", "a proposal, s"]]
    for one in searches:
        base = next((other for other in searches if (other.task, other.searcher) == (one.task, BASELINE)), one)
        held = ["", ""] if base is one else [_told(gains(one, base), "+"), _share(share_to(one, base))]
        figures = [_told(one.found[:, t - 1]) if t <= one.found.shape[1] else "" for t in at]
        also = ", ".join(f"{name} {_told(values)}" for name, values in one.also.items())
        seconds = [f"{value:.1f}" for value in one.seconds]
        name = f"{one.task} ({one.metric})"
        rows.append([name, one.searcher, str(len(one.seeds)), *figures, *held, also, *seconds])
    return rows


def gains(one: Searches, base: Searches) -> np.ndarray:
    """How much better than the other at the end, seed by seed of those that both have: larger is better."""
    sign = 1.0 if one.mode == "max" else -1.0
    theirs = dict(zip(base.seeds, base.found[:, -1], strict=True))
    pairs = [(mine, theirs[seed]) for seed, mine in zip(one.seeds, one.found[:, -1], strict=True) if seed in theirs]
    return np.array([sign * (mine - other) for mine, other in pairs])


def share_to(one: Searches, base: Searches) -> float | None:
    """Samples until the mean over seeds is as good as the other's at its end, as a share of the other's samples."""
    sign = 1.0 if one.mode == "min" else -1.0
    target = sign * base.found[:, -1].mean()
    reached = np.flatnonzero(sign * one.found.mean(axis=0) <= target)
    return None if not reached.size else float(one.samples[:, reached[0]].mean() / base.samples[:, -1].mean())


def _share(share: float | None) -> str:
    return "never" if share is None else f"{share:.2f}"


def _told(values: Sequence[float] | np.ndarray, sign: str = "-") -> str:
    if not len(values):
        return ""
    return with_error(list(values), sign) if np.isfinite(values).all() else "none found"


def write_training(folder: str | Path, stem: str | Path) -> list[Path]:
    """Writes `STEM.md`, the table, and `STEM.svg`, the found recipe's worth against samples, of a folder of searches.

    Raises:
        UserError: as `read_searches`, or matplotlib is missing (extra `report`).
    """
    searches = read_searches(folder)
    stem = output_stem(stem)
    table, plot = Path(f"{stem}.md"), Path(f"{stem}.svg")
    table.write_text(markdown(training_table(searches)))
    _plot(searches, plot)
    return [table, plot]


def _plot(searches: Sequence[Searches], path: Path) -> None:
    from raylora.reports.plots import load_pyplot, save_plot

    pyplot = load_pyplot()
    tasks = sorted({one.task for one in searches})
    names = sorted({one.searcher for one in searches})
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(5.5 * len(tasks), 4.2), layout="constrained", squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for one in (one for one in searches if one.task == task):
            samples, middle = one.samples.mean(axis=0), one.found.mean(axis=0)
            color = f"C{names.index(one.searcher)}"
            axis.plot(samples, middle, color=color, marker="o", markersize=3, label=one.searcher)
            if len(one.seeds) > 1:
                error = one.found.std(axis=0, ddof=1) / math.sqrt(len(one.seeds))
                axis.fill_between(samples, middle - error, middle + error, color=color, alpha=0.15, linewidth=0)
        metric = next(one.metric for one in searches if one.task == task)
        axis.set(xlabel="samples trained on", ylabel=f"{metric} on test of the recipe found", title=task)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save_plot(figure, path, "--to")
