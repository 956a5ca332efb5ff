"""`raylora report`: the learning-rate sweep of a run as a table, a plot and a recorded grid.

Source of all three are per-run records, one JSON object per trial, in one list: what was trained (`config`), and what
came out. They are written from a run's folder, and everything else is rebuilt from them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.errors import UserError
from raylora.spec.paths import output_stem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What a record keeps of a trial, beside `config` and the metric with its standard error.
_KEPT = (
    "validation_loss",
    "loss",
    "samples",
    "train_s",
    "eval_s",
    "trainable_parameters",
    "effective_rank",
    "touched_parameters",
    "touched_per_step",
)
# Knobs as a recorded grid names them (`raylora.data.grids`).
_GRID_KNOBS = ("variant", "rank", "alpha", "batch_size", "learning_rate", "dropout")


@dataclass(frozen=True)
class Sweep:
    """Records of one sweep, and what was the same for all of them.

    Attributes:
        about: model, task, rows, metric, mode, seed. runs: `{"config", metric, metric_se, "diverged", ...}` each.
    """

    about: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]

    @property
    def metric(self) -> str:
        return str(self.about["metric"])


@dataclass(frozen=True)
class BestRate:
    """Where a variant is best.

    Attributes:
        rate, score, error: of the best trial; ties go to the lower validation loss. loss_rate: minimum of a parabola
            through the lowest validation loss and its neighbours, over the logarithm of the rate. edge: whether either
            lies at an end of the rates tried.
    """

    variant: str
    rate: float
    score: float
    error: float
    loss_rate: float
    loss: float
    edge: bool


def read_sweep(source: str | Path) -> Sweep:
    """Records of a run's folder, or of a JSON file that `write_sweep` made.

    Raises:
        UserError: it is neither.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_run(path)
    try:
        data = json.loads(path.read_text())
        return Sweep(data["about"], data["runs"])
    except FileNotFoundError:
        raise UserError.at(
            "SOURCE", f"{path} does not exist; give a run's folder or a JSON of records", value=str(path)
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise UserError.at(
            "SOURCE", f"{path} holds no records; give a run's folder or this command's JSON", value=str(path)
        ) from None


def _from_run(folder: Path) -> Sweep:
    from raylora.build import build_task
    from raylora.run.folder import read_run
    from trainables.journal import Journal

    folder, spec = read_run(folder)
    task = build_task(spec)
    runs = []
    for end in Journal(folder).concluded().values():
        if end.failed:
            continue
        kept = {name: end.metrics[name] for name in (task.metric, f"{task.metric}_se", *_KEPT) if name in end.metrics}
        runs.append({"config": end.config, "diverged": end.diverged, **kept})
    if not runs:
        raise UserError.at(
            "SOURCE",
            f"{folder} has no finished trial; finish the run with `raylora resume {folder}`",
            value=str(folder),
        )
    about = {
        "model": spec.model,
        "task": spec.task.model_dump(mode="json", exclude_none=True),
        "train": spec.train.model_dump(mode="json", exclude_none=True),
        "metric": task.metric,
        "mode": task.mode,
        "seed": spec.seed,
    }
    return Sweep(about, runs)


def merge(sweeps: Sequence[Sweep]) -> Sweep:
    """One sweep of several that differ in their configurations alone; a configuration met again replaces the earlier.

    Raises:
        UserError: they are not about the same model, task and budget.
    """
    first = sweeps[0]
    runs: dict[str, Mapping[str, Any]] = {}
    for sweep in sweeps:
        for name, value in first.about.items():
            if sweep.about.get(name) != value:
                raise UserError.at("SOURCE", f"the sweeps differ in {name}; report them one by one")
        for run in sweep.runs:
            runs[json.dumps(run["config"], sort_keys=True)] = run
    return Sweep(first.about, [runs[key] for key in sorted(runs)])


def best_rates(sweep: Sweep) -> list[BestRate]:
    """Best learning rate of each variant, in the order of first appearance; diverged runs are worst."""
    sign = 1.0 if sweep.about["mode"] == "max" else -1.0
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for run in sweep.runs:
        by_variant.setdefault(str(run["config"]["variant"]), []).append(run)
    found = []
    for variant, runs in by_variant.items():
        runs = sorted(runs, key=lambda run: run["config"]["learning_rate"])
        fine = [run for run in runs if _fine(run, sweep.metric)]
        if not fine:
            continue
        best = max(fine, key=lambda run: (sign * run[sweep.metric], -_loss(run)))
        rates = [float(run["config"]["learning_rate"]) for run in runs]
        rate = float(best["config"]["learning_rate"])
        lowest = min(fine, key=_loss)
        ends = {rates[0], rates[-1]}
        found.append(
            BestRate(
                variant,
                rate,
                float(best[sweep.metric]),
                float(best.get(f"{sweep.metric}_se") or 0.0),
                _loss_optimum([(float(r["config"]["learning_rate"]), _loss(r)) for r in fine]),
                _loss(lowest),
                rate in ends or float(lowest["config"]["learning_rate"]) in ends,
            )
        )
    return found


def _fine(run: Mapping[str, object], name: str) -> bool:
    return not run["diverged"] and run.get(name) is not None


def _loss(run: Mapping[str, Any]) -> float:
    value = run.get("validation_loss")
    return math.inf if value is None or not math.isfinite(value) else float(value)


def _loss_optimum(points: Sequence[tuple[float, float]]) -> float:
    """Rate at the vertex of the parabola through the lowest loss and its neighbours (over log rate)."""
    rates, losses = (np.array(column) for column in zip(*sorted(points), strict=True))
    at = int(losses.argmin())
    if not 0 < at < len(rates) - 1 or not np.isfinite(losses[at - 1 : at + 2]).all():
        return float(rates[at])
    a, b, _ = np.polyfit(np.log10(rates[at - 1 : at + 2]), losses[at - 1 : at + 2], 2)
    return float(10 ** (-b / (2 * a))) if a > 0 else float(rates[at])


# -- outputs ----------------------------------------------------------------------------------------------------------


def write_report(sweep: Sweep, stem: str | Path, grid: str | Path | None = None) -> list[Path]:
    """Writes `STEM.records.json`, `STEM.md` and `STEM.svg`.

    Args:
        grid: where to write the recorded grid, a CSV, with what was fixed in a JSON of the same name; None for not.

    Raises:
        UserError: matplotlib is missing (extra `report`).
    """
    stem = output_stem(stem)
    records, table, plot = files = [Path(f"{stem}{ending}") for ending in (".records.json", ".md", ".svg")]
    lines = ",\n".join(f"  {json.dumps(run)}" for run in sweep.runs)
    records.write_text(f'{{"about": {json.dumps(dict(sweep.about))},\n "runs": [\n{lines}\n]}}\n')
    table.write_text(_page(sweep, stem.name))
    _plot(sweep, plot)
    if grid is not None:
        csv = output_stem(grid, "--grid")
        files += [csv, csv.with_suffix(".json")]
        _write_grid(sweep, *files[-2:])
    return files


def _page(sweep: Sweep, name: str) -> str:
    """The tables under a heading, with what was trained, how to rebuild the page, and the plot."""
    about, task = sweep.about, sweep.about["task"]
    samples = max(int(run.get("samples", 0)) for run in sweep.runs)
    same = {
        knob: sweep.runs[0]["config"][knob]
        for knob in sweep.runs[0]["config"]
        if len({json.dumps(run["config"].get(knob)) for run in sweep.runs}) == 1
    }
    fixed = ", ".join(f"{knob} {value:g}" for knob, value in same.items() if isinstance(value, int | float))
    return (
        f"# Learning rates: {name}\n\n"
        f"{len(sweep.runs)} runs of `{about['model']}` on `{task['name']}`, {samples} samples each, seed "
        f"{about['seed']}{', ' + fixed if fixed else ''};\n"
        f"{task.get('validation_rows') or 'all'} validation rows. From the records: "
        f"`raylora report {name}.records.json --to {name}`.\n\n"
        f"![{sweep.metric} and validation loss over the learning rate, one line per variant]({name}.svg)\n\n"
        "The rate of the lowest loss is the vertex of a parabola through the lowest loss and its neighbours. `(edge)`: "
        "the best\nrate is at an end of the range. Published ratios and their sources: "
        "`searchers/surrogate/facts.py`.\n\n" + markdown(sweep)
    )


def markdown(sweep: Sweep) -> str:
    """Two tables: best rates with their ratio to LoRA's beside the published one, and the metric of every run."""
    from searchers.surrogate.facts import VARIANTS

    found = best_rates(sweep)
    plain = next((one for one in found if one.variant == "lora"), None)
    second = f"Second table: {sweep.metric} / validation loss at each rate."
    lines = [
        f"| variant | best rate | {sweep.metric} | lowest loss | its rate | its ratio to LoRA's | published ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        ratio = "" if plain is None else f"{one.loss_rate / plain.loss_rate:.2g}"
        fact = VARIANTS.get(one.variant)
        told = "1" if one.variant == "lora" else "" if fact is None else f"{fact.value:g} ({fact.claim})"
        edge = " (edge)" if one.edge else ""
        lines.append(
            f"| {one.variant} | {one.rate:.2g}{edge} | {one.score:.3f} ± {one.error:.3f} | {one.loss:.3f} "
            f"| {one.loss_rate:.2g} | {ratio} | {told} |"
        )
    rates = sorted({float(run["config"]["learning_rate"]) for run in sweep.runs})
    lines += [
        "",
        second,
        "",
        "| variant | " + " | ".join(f"{rate:.2g}" for rate in rates) + " |",
        "|---" * (len(rates) + 1) + "|",
    ]
    for one in found:
        cells = []
        for rate in rates:
            run = next(
                (
                    run
                    for run in sweep.runs
                    if run["config"]["variant"] == one.variant and float(run["config"]["learning_rate"]) == rate
                ),
                None,
            )
            if run is None:
                cells.append("")
            elif not _fine(run, sweep.metric):
                cells.append("diverged")
            else:
                cells.append(f"{run[sweep.metric]:.2f} / {_loss(run):.2f}")
        lines.append(f"| {one.variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _plot(sweep: Sweep, path: Path) -> None:
    from raylora.reports.plots import load_pyplot

    pyplot = load_pyplot("report")
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axis, name in zip(axes, (sweep.metric, "validation_loss"), strict=True):
        _draw(axis, sweep, name)
    axes[1].legend(fontsize=8, ncols=2)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw(axis: Axes, sweep: Sweep, name: str) -> None:
    for number, variant in enumerate(dict.fromkeys(str(run["config"]["variant"]) for run in sweep.runs)):
        points = sorted(
            (float(run["config"]["learning_rate"]), float(run[name]))
            for run in sweep.runs
            if run["config"]["variant"] == variant and _fine(run, name)
        )
        if points:
            axis.plot(*zip(*points, strict=True), marker="os^Dv"[number % 5], markersize=4, label=variant)
    axis.set_xscale("log")
    axis.set_xlabel("learning rate")
    axis.set_ylabel(name.replace("_", " "))
    axis.grid(alpha=0.3)
    if name == "validation_loss":
        axis.set_ylim(top=np.percentile([_loss(run) for run in sweep.runs if math.isfinite(_loss(run))], 90))


def _write_grid(sweep: Sweep, csv: Path, fixed: Path) -> None:
    """The grid for `raylora bench searchers`: larger is better; a diverged run has the worst value of the others."""
    import pandas as pd

    from raylora.run.trials import with_both_alphas

    sign = 1.0 if sweep.about["mode"] == "max" else -1.0
    known = [sign * run[sweep.metric] for run in sweep.runs if _fine(run, sweep.metric)]
    rows, samples = [], 0
    for run in sweep.runs:
        config = with_both_alphas(run["config"])
        fine = _fine(run, sweep.metric)
        row = {name: config[name] for name in _GRID_KNOBS if name in config}
        row["accuracy"] = sign * run[sweep.metric] if fine else min(known)
        row["accuracy_std"] = float(run.get(f"{sweep.metric}_se") or 0.0) if fine else 0.0
        rows.append(row)
        samples = max(samples, int(run.get("samples", 0)))
    pd.DataFrame(rows).to_csv(csv, index=False)
    what = {"train_samples": samples, **{name: sweep.about[name] for name in ("model", "task", "train", "seed")}}
    about = {"source": "trained with this project", "fixed": what, "runs": 1, "metric": sweep.metric}
    fixed.write_text(json.dumps(about, indent=2) + "\n")
