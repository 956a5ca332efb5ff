"""Table and plot of the runs of `raylora bench convergence`: each arm at its best rate, against the plain form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.bench.convergence import best_rate, read_run
from raylora.bench.records import markdown, mean, with_error
from raylora.errors import UserError
from raylora.spec.paths import output_stem

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Curve:
    """An arm at its best rate.

    Attributes:
        rates: tried with the first seed. losses: `(seeds, steps)`, smoothed. runs: of the best rate, one per seed, with
            those that diverged.
    """

    label: str
    rate: float
    rates: tuple[float, ...]
    losses: list[list[float]]
    runs: list[Mapping[str, Any]]

    @property
    def finished(self) -> list[Mapping[str, Any]]:
        """The runs that `losses` are of."""
        return [run for run in self.runs if not run["diverged"]]

    @property
    def finals(self) -> dict[int, float]:
        """Seed -> smoothed loss at the end. Seeds differ in the order of the rows, hence in where the loss ends."""
        return {run["seed"]: losses[-1] for run, losses in zip(self.finished, self.losses, strict=True)}

    @property
    def edge(self) -> bool:
        """Whether the best rate is the smallest or the largest tried."""
        return self.rate in (self.rates[0], self.rates[-1])


def smooth(losses: Sequence[float | None], half_life: float) -> list[float]:
    """Exponential mean with bias correction; a value that is missing leaves it as it was."""
    keep, mean, weight, found = 0.5 ** (1 / half_life), 0.0, 0.0, []
    for loss in losses:
        if loss is not None:
            mean, weight = keep * mean + (1 - keep) * loss, keep * weight + (1 - keep)
        found.append(mean / weight if weight else math.nan)
    return found


def read_curves(folder: str | Path) -> list[Curve]:
    """The arms of a folder of runs, each at its best rate, in alphabetic order.

    Raises:
        UserError: no run there, or runs of different lengths, models or tasks.
    """
    runs = [read_run(path) for path in sorted(Path(folder).expanduser().glob("*.json"))]
    if not runs:
        raise UserError(
            f"{folder}: no run there; measure with `raylora bench convergence`", field="FOLDER", value=str(folder)
        )
    for name in dict.fromkeys(name for run in runs for name in run["about"]):
        if any(run["about"].get(name) != runs[0]["about"].get(name) for run in runs):
            raise UserError(
                f"{folder}: the runs differ in {name}; keep one folder for each", field="FOLDER", value=str(folder)
            )
    steps = max(len(run["loss"]) for run in runs)
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if not run["diverged"] and len(run["loss"]) != steps:
            raise UserError(
                f"{folder}: a run of {run['arm']} has {len(run['loss'])} steps, others {steps}",
                field="FOLDER",
                value=str(folder),
            )
        by_arm.setdefault(run["arm"], []).append(run)
    curves = []
    for label, found in sorted(by_arm.items()):
        first = min(run["seed"] for run in found)
        tried = {float(run["knobs"]["learning_rate"]): run for run in found if run["seed"] == first}
        rate = best_rate(tried)
        chosen = sorted((r for r in found if float(r["knobs"]["learning_rate"]) == rate), key=lambda r: r["seed"])
        losses = [smooth(run["loss"], max(1.0, steps / 10)) for run in chosen if not run["diverged"]]
        curves.append(Curve(label, rate, tuple(sorted(tried)), losses, chosen))
    return curves


def steps_to(losses: Sequence[float], target: float) -> int | None:
    """Steps until the smoothed loss is at most `target` for the first time; None where it never is."""
    return next((step + 1 for step, loss in enumerate(losses) if loss <= target), None)


def checks_of(run: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """Steps and validation losses during a run; both empty where none were taken."""
    found = [(int(step), float(loss)) for step, loss in run.get("checks", []) if loss is not None]
    return [step for step, _ in found], [loss for _, loss in found]


def step_reaching(steps: Sequence[int], losses: Sequence[float], target: float) -> int | None:
    """First step at which the loss, linear between checks, is at most `target`; None where it never is."""
    for i, loss in enumerate(losses):
        if loss <= target:
            if i == 0:
                return steps[0]
            share = (losses[i - 1] - target) / (losses[i - 1] - loss)
            return math.ceil(steps[i - 1] + share * (steps[i] - steps[i - 1]))
    return None


def plain_counterpart(label: str, labels: Sequence[str]) -> str | None:
    """The arm that an arm is compared with: `hyper_x...` with `x`, where that was measured."""
    variant = label.partition(":")[0]
    plain = variant.removeprefix("hyper_")
    return plain if plain != variant and plain in labels else None


def _quarters(losses: Sequence[float | None]) -> list[list[float]]:
    """What is there in each quarter of a run."""
    bounds = [round(len(losses) * i / 4) for i in range(5)]
    return [[x for x in losses[a:b] if x is not None] for a, b in itertools.pairwise(bounds)]


def quarters_less(curve: Curve, plain: Curve) -> list[list[float]]:
    """Mean loss less the plain arm's in each quarter, one row per seed that both have.

    A seed gives both the same batches in the same order, so what batches differ in cancels.
    """
    others = {run["seed"]: run for run in plain.finished}
    rows = []
    for run in curve.finished:
        if run["seed"] in others:
            pairs = zip(run["loss"], others[run["seed"]]["loss"], strict=True)
            rows.append([mean(part) for part in _quarters([x - y if None not in (x, y) else None for x, y in pairs])])
    return rows


def _pairs(curve: Curve, plain: Curve) -> list[tuple[tuple[list[int], list[float]], tuple[list[int], list[float]]]]:
    """Checks of both arms' runs, for each seed of which both have some."""
    others = {run["seed"]: checks_of(run) for run in plain.finished}
    both = [(checks_of(run), others.get(run["seed"], ([], []))) for run in curve.finished]
    return [(mine, theirs) for mine, theirs in both if mine[0] and theirs[0]]


def validation_steps(curve: Curve, plain: Curve, part: float) -> list[int | None]:
    """Steps to the validation loss that the plain arm has after `part` of its steps, one per seed."""
    found = []
    for mine, theirs in _pairs(curve, plain):
        found.append(step_reaching(*mine, float(np.interp(part * theirs[0][-1], *theirs))))
    return found


def validation_less(curve: Curve, plain: Curve) -> list[list[float]]:
    """Validation loss less the plain arm's after each quarter, one row per seed."""
    rows = []
    for mine, theirs in _pairs(curve, plain):
        at = [theirs[0][-1] * i / 4 for i in range(1, 5)]
        rows.append(list(np.interp(at, *mine) - np.interp(at, *theirs)))
    return rows


def convergence_table(curves: Sequence[Curve]) -> list[list[str]]:
    """A header and a row per arm; means over seeds ± their standard error, where there are several."""
    metric = str(curves[0].runs[0]["metric"])
    rows = [
        [
            "arm",
            "best rate",
            "of",
            "training loss",
            "validation loss",
            metric,
            "steps to the plain final loss",
            "less the plain loss, by quarter",
            "steps to the plain validation loss at half, at the end",
            "validation loss less the plain one, after each quarter",
            "train, s",
            "in hypernetwork, s",
            "peak memory, GB",
            "optimizer, MB",
            "adapter",
            "hypernetwork",
        ]
    ]
    by_label = {curve.label: curve for curve in curves}
    for curve in curves:
        plain = by_label[plain_counterpart(curve.label, list(by_label)) or curve.label]
        finals = plain.finals
        targets = [finals.get(run["seed"], mean(list(finals.values()))) for run in curve.finished]
        reached = [steps_to(losses, target) for losses, target in zip(curve.losses, targets, strict=True)]

        def told(name: str, curve: Curve = curve) -> str:
            return _told([float(run[name]) for run in curve.runs if name in run])

        rows.append(
            [
                curve.label,
                f"{curve.rate:g}" + (" (edge)" if curve.edge else ""),
                ", ".join(f"{rate:g}" for rate in curve.rates),
                _told([losses[-1] for losses in curve.losses]),
                told("validation_loss"),
                told(metric),
                f"{_steps(reached)} of {len(curve.losses[0]) if curve.losses else 0}",
                "" if curve is plain else _quarterly(quarters_less(curve, plain)),
                "; ".join(filter(None, (_steps(validation_steps(curve, plain, part)) for part in (0.5, 1)))),
                "" if curve is plain else _quarterly(validation_less(curve, plain)),
                *(f"{mean([float(run[n]) for run in curve.runs]):.0f}" for n in ("train_s", "hypernetwork_s")),
                f"{mean([float(run['peak_memory_gb']) for run in curve.runs]):.2f}",
                f"{mean([float(run['optimizer_mb']) for run in curve.runs]):.1f}",
                *(f"{int(curve.runs[0][n]):,}" for n in ("adapter_parameters", "hypernetwork_parameters")),
            ]
        )
    return rows


def _steps(found: Sequence[int | None]) -> str:
    return ", ".join("never" if n is None else str(n) for n in found)


def _quarterly(rows: Sequence[Sequence[float]]) -> str:
    """A row per seed, a column per quarter."""
    return ", ".join(_told(column, sign="+") for column in zip(*rows, strict=True))


def _told(values: Sequence[float], sign: str = "-") -> str:
    return with_error(values, sign) if values else "diverged"


def write_convergence(folder: str | Path, stem: str | Path) -> list[Path]:
    """Writes `STEM.md`, the table, and `STEM.svg`, the loss curves, from the runs of a folder.

    Raises:
        UserError: as `read_curves`, or matplotlib is missing (extra `report`).
    """
    curves = read_curves(folder)
    stem = output_stem(stem)
    table, plot = Path(f"{stem}.md"), Path(f"{stem}.svg")
    table.write_text(markdown(convergence_table(curves)))
    _plot(curves, plot)
    return [table, plot]


def _plot(curves: Sequence[Curve], path: Path) -> None:
    from raylora.reports.plots import load_pyplot

    pyplot = load_pyplot()
    families = sorted({_family(curve) for curve in curves})
    checked = any(checks_of(run)[0] for curve in curves for run in curve.finished)
    shape = (1 + checked, len(families))
    size = (5.5 * shape[1], 4.2 * shape[0])
    figure, axes = pyplot.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for column, family in enumerate(families):
        of_it = [curve for curve in curves if _family(curve) == family and curve.losses]
        for number, curve in enumerate(of_it):
            label = f"{curve.label} ({curve.rate:g})"
            _band(axes[0][column], range(1, len(curve.losses[0]) + 1), curve.losses, number, label)
            found = [checks_of(run) for run in curve.finished]
            # A loss that was not finite is missing; the mean is over runs that have all of them.
            steps = max((steps for steps, _ in found), key=len, default=[])
            found = [(mine, losses) for mine, losses in found if mine == steps]
            if steps:
                _band(axes[1][column], found[0][0], [losses for _, losses in found], number, label)
        axes[0][column].set(xlabel="optimizer step", ylabel="training loss (smoothed), nats per token", title=family)
        if checked:
            axes[1][column].set(xlabel="optimizer step", ylabel="validation loss, nats per token")
        for axis in axes[:, column]:
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _family(curve: Curve) -> str:
    return curve.label.partition(":")[0].removeprefix("hyper_")


def _band(axis: Axes, steps: Sequence[int], losses: Sequence[Sequence[float]], number: int, label: str) -> None:
    """Mean over the seeds, and the range of them."""
    columns = list(zip(*losses, strict=True))
    axis.plot(steps, [mean(c) for c in columns], color=f"C{number}", label=label)
    low, high = [min(c) for c in columns], [max(c) for c in columns]
    axis.fill_between(steps, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
