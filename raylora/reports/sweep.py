"""`raylora report`: the learning-rate sweep of a run as a table, a plot and a recorded grid.

Source of all three are per-run records, one JSON object per trial, in one list: what was trained (`config`), and what
came out. They are written from a run's folder, and everything else is rebuilt from them. Sweeps of the same space under
several seeds are one: figures are means over the seeds, and `±` is the standard error of that mean; under one seed it
is that of the validation rows.
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
from raylora.metrics.statistics import mean_and_error
from raylora.reports.methods import Method, method_names, method_of
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
        about: model, task, rows, metric, mode, seed; of several seeds a list of them. runs: `{"config", metric,
            metric_se, "diverged", ...}` each, with a `seed` where there are several.
    """

    about: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]

    @property
    def metric(self) -> str:
        return str(self.about["metric"])


@dataclass(frozen=True)
class Point:
    """A method at a rate.

    Attributes:
        score, error: mean of the metric over the seeds and its standard error; NaN where a run diverged. loss: mean
            validation loss, infinite where it is not known. seeds: how many.
    """

    rate: float
    score: float
    error: float
    loss: float
    seeds: int

    @property
    def fine(self) -> bool:
        """Whether no run diverged."""
        return not math.isnan(self.score)


@dataclass(frozen=True)
class BestRate:
    """Where a method is best.

    Attributes:
        variant, name: of the method; see `methods.method_names`.
        rate, score, error: of the best rate; ties go to the lower validation loss. loss_rate: minimum of a parabola
            through the lowest validation loss and its neighbours, over the logarithm of the rate. edge: whether either
            lies at an end of the rates tried. seeds: at the best rate.
    """

    variant: str
    name: str
    rate: float
    score: float
    error: float
    loss_rate: float
    loss: float
    edge: bool
    seeds: int


def read_sweep(source: str | Path) -> Sweep:
    """Records of a run's folder, or of a JSON file that `write_sweep` made.

    Raises:
        UserError: it is neither.
    """
    from raylora.run.stored import is_stored

    path = Path(source).expanduser()
    if is_stored(source):
        return _from_run(source)
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


def _from_run(folder: str | Path) -> Sweep:
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
    """One sweep of several that differ in configurations and seeds alone; a run met again replaces the earlier.

    Raises:
        UserError: they are not about the same model, task and budget.
    """
    first = sweeps[0]
    runs: dict[tuple[str, int], Mapping[str, Any]] = {}
    for sweep in sweeps:
        for name, value in first.about.items():
            if name != "seed" and sweep.about.get(name) != value:
                raise UserError.at("SOURCE", f"the sweeps differ in {name}; report them one by one")
        for run in sweep.runs:
            seed = int(run.get("seed", sweep.about["seed"]))
            runs[json.dumps(run["config"], sort_keys=True), seed] = {**run, "seed": seed}
    seeds = sorted({seed for _, seed in runs})
    ordered = [runs[key] for key in sorted(runs)]
    if len(seeds) > 1:
        return Sweep({**first.about, "seed": seeds}, ordered)
    return Sweep({**first.about, "seed": seeds[0]}, [{k: v for k, v in run.items() if k != "seed"} for run in ordered])


def points(sweep: Sweep) -> dict[Method, list[Point]]:
    """Each method's rates, increasing, in the order of the methods' first appearance.

    Where rates were tried under different seeds, those that all of a method's rates have in common count, so that none
    is better by its seeds; without any in common, all of them.
    """
    found: dict[Method, dict[float, list[Mapping[str, Any]]]] = {}
    for run in sweep.runs:
        rates = found.setdefault(method_of(run["config"]), {})
        rates.setdefault(float(run["config"]["learning_rate"]), []).append(run)
    return {method: [_point(sweep, rate, rates) for rate in sorted(rates)] for method, rates in found.items()}


def _point(sweep: Sweep, rate: float, rates: Mapping[float, Sequence[Mapping[str, Any]]]) -> Point:
    common = set.intersection(*({run.get("seed") for run in runs} for runs in rates.values()))
    runs = [run for run in rates[rate] if not common or run.get("seed") in common]
    if not all(_fine(run, sweep.metric) for run in rates[rate]):
        return Point(rate, math.nan, math.nan, math.inf, len(runs))
    score, error = mean_and_error([float(run[sweep.metric]) for run in runs])
    if error is None:
        error = float(runs[0].get(f"{sweep.metric}_se") or 0.0)
    return Point(rate, score, error, sum(map(_loss, runs)) / len(runs), len(runs))


def best_rates(sweep: Sweep) -> list[BestRate]:
    """Best learning rate of each method, in the order of first appearance; diverged runs are worst."""
    sign = 1.0 if sweep.about["mode"] == "max" else -1.0
    names = method_names(run["config"] for run in sweep.runs)
    found = []
    for method, tried in points(sweep).items():
        fine = [point for point in tried if point.fine]
        if not fine:
            continue
        best = max(fine, key=lambda point: (sign * point.score, -point.loss))
        lowest = min(fine, key=lambda point: point.loss)
        ends = {tried[0].rate, tried[-1].rate}
        found.append(
            BestRate(
                method.variant,
                names[method],
                best.rate,
                best.score,
                best.error,
                _loss_optimum([(point.rate, point.loss) for point in fine]),
                lowest.loss,
                best.rate in ends or lowest.rate in ends,
                best.seeds,
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
    seeds = about["seed"] if isinstance(about["seed"], list) else [about["seed"]]
    return (
        f"# Learning rates: {name}\n\n"
        f"{len(sweep.runs)} runs of `{about['model']}` on `{task['name']}`, {samples} samples each, "
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}{', ' + fixed if fixed else ''};\n"
        f"{task.get('validation_rows') or 'all'} validation rows. From the records: "
        f"`raylora report {name}.records.json --to {name}`.\n\n"
        f"![{sweep.metric} and validation loss over the learning rate, one line per variant]({name}.svg)\n\n"
        "The rate of the lowest loss is the vertex of a parabola through the lowest loss and its neighbours. `(edge)`: "
        "the best\nrate is at an end of the range. Published ratios and their sources: "
        "`searchers/surrogate/facts.py`.\n\n" + markdown(sweep)
    )


def markdown(sweep: Sweep) -> str:
    """Two tables: best rates with their ratio to LoRA's beside the published one, and the figures at every rate."""
    from searchers.surrogate.facts import VARIANTS

    found, by_method = best_rates(sweep), points(sweep)
    names = method_names(run["config"] for run in sweep.runs)
    methods = {name: method for method, name in names.items()}
    several = isinstance(sweep.about.get("seed"), list)
    plain = {one.name: one.loss_rate for one in found}
    lines = [
        f"| variant | best rate | {sweep.metric} | lowest loss | its rate | its ratio to LoRA's | published ratio |"
        + (" seeds |" if several else ""),
        "|---|---|---|---|---|---|---|" + ("---|" if several else ""),
    ]
    for one in found:
        lora = plain.get(names.get(methods[one.name].plain, ""))
        ratio = "" if lora is None else f"{one.loss_rate / lora:.2g}"
        fact = VARIANTS.get(one.variant)
        told = "1" if one.variant == "lora" else "" if fact is None else f"{fact.value:g} ({fact.claim})"
        edge = " (edge)" if one.edge else ""
        lines.append(
            f"| {one.name} | {one.rate:.2g}{edge} | {one.score:.3f} ± {one.error:.3f} | {one.loss:.3f} "
            f"| {one.loss_rate:.2g} | {ratio} | {told} |" + (f" {one.seeds} |" if several else "")
        )
    rates = sorted({float(run["config"]["learning_rate"]) for run in sweep.runs})
    means = ", means over the seeds" if several else ""
    lines += [
        "",
        f"Second table: {sweep.metric} / validation loss at each rate{means}.",
        "",
        "| variant | " + " | ".join(f"{rate:.2g}" for rate in rates) + " |",
        "|---" * (len(rates) + 1) + "|",
    ]
    for one in found:
        cells = {point.rate: _cell(point) for point in by_method[methods[one.name]]}
        lines.append(f"| {one.name} | " + " | ".join(cells.get(rate, "") for rate in rates) + " |")
    return "\n".join(lines) + "\n"


def _cell(point: Point) -> str:
    return f"{point.score:.2f} / {point.loss:.2f}" if point.fine else "diverged"


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
    names = method_names(run["config"] for run in sweep.runs)
    for number, (method, tried) in enumerate(points(sweep).items()):
        fine = [point for point in tried if point.fine]
        values = [point.loss if name == "validation_loss" else point.score for point in fine]
        if fine:
            rates = [point.rate for point in fine]
            axis.plot(rates, values, marker="os^Dv"[number % 5], markersize=4, label=names[method])
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
    by_config: dict[str, list[Mapping[str, Any]]] = {}
    for run in sweep.runs:
        by_config.setdefault(json.dumps(run["config"], sort_keys=True), []).append(run)
    most = max(map(len, by_config.values()))
    rows = []
    for runs in by_config.values():
        config = with_both_alphas(runs[0]["config"])
        row = {name: config[name] for name in _GRID_KNOBS if name in config}
        fine = all(_fine(run, sweep.metric) for run in runs)
        value, error = mean_and_error([sign * run[sweep.metric] for run in runs]) if fine else (min(known), 0.0)
        if error is None:
            error = float(runs[0].get(f"{sweep.metric}_se") or 0.0)
        # Readers divide by the root of the number of runs.
        rows.append(row | {"accuracy": value, "accuracy_std": error * math.sqrt(most)})
    samples = max(int(run.get("samples", 0)) for run in sweep.runs)
    pd.DataFrame(rows).to_csv(csv, index=False)
    what = {"train_samples": samples, **{name: sweep.about[name] for name in ("model", "task", "train", "seed")}}
    about = {"source": "trained with this project", "fixed": what, "runs": most, "metric": sweep.metric}
    fixed.write_text(json.dumps(about, indent=2) + "\n")
