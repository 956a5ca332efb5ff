"""`raylora compare`: variants at their own best learning rates, over several tasks and seeds.

Specs are trained under each seed, every configuration of their spaces; the records of all trials, one JSON object each,
are the source of the table and the plot, and either can be rebuilt from them. Configurations that differ in the
learning rate alone are one method (`methods`). A method's best rate on a task is the one with the lowest validation
loss, which is steadier than the score of a few rows, in the mean over the seeds that all its rates were trained under:
rates may be tried under one seed, and the best of them trained under others.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError
from raylora.metrics.statistics import standard_error
from raylora.reports.methods import Method, method_names, method_of
from raylora.reports.plots import load_pyplot
from raylora.spec.paths import output_stem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from raylora.spec import Spec

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A method on a task at its best rate.

    Attributes:
        score, error: mean of the task's metric over `seeds` seeds, and its standard error.
        loss, loss_error: the same of the validation loss.
        trained, touched: numbers trained per step (mean over the steps), and ever: mean over the seeds of both.
        rate: NaN, and so are the figures, where a run diverged at each rate.
        edge: whether the rate lies at an end of those tried, so that a better one may lie outside.
    """

    task: str
    method: str
    rate: float
    metric: str
    score: float
    error: float
    loss: float
    loss_error: float
    trained: float
    touched: float
    seeds: int
    edge: bool


def run_specs(specs: Sequence[str], overrides: Sequence[str], seeds: Sequence[int], *, quiet: bool) -> list[Record]:
    """Trains every configuration of each spec under each seed; runs that are there already are taken up again.

    Raises:
        UserError: as `raylora tune`.
    """
    from raylora.reports.sweep import read_sweep
    from raylora.run import experiment
    from raylora.run.checks import check_world
    from raylora.run.stored import folder_of
    from raylora.spec import load

    records: list[Record] = []
    for spec_file in specs:
        for seed in seeds:
            # One trial: an override may have made the space smaller than what the spec asks for.
            fixed = [f"seed={seed}", "search={searcher: grid, trials: 1}", "final.enabled=false"]
            wanted = load(spec_file, [*overrides, *fixed])
            task = wanted.name or Path(spec_file).stem
            search = wanted.search.model_copy(update={"trials": wanted.space_size})
            spec = wanted.model_copy(update={"name": run_name(task, seed, wanted), "search": search})
            check_world(spec)
            folder = known_run(task, seed, spec)
            if folder is not None:
                experiment.resume(folder, quiet=quiet)
            else:
                folder = folder_of(spec, "compare") / str(spec.name)
                experiment.tune(spec, quiet=quiet)
            sweep = read_sweep(folder)
            shared = {name: sweep.about[name] for name in ("model", "metric", "mode")}
            records += [{"task": task, "seed": seed, **shared, **run} for run in sweep.runs]
    return records


def known_run(task: str, seed: int, spec: Spec) -> Path | None:
    """The folder of a run of the same spec, by whichever release; None where there is none.

    The specs are compared, not the digests in the folders' names: a digest changes as the spec gains fields.
    """
    from raylora.run.folder import RUN_MARK, read_run
    from raylora.run.stored import folder_of

    for folder in sorted(folder_of(spec, "compare").glob(f"compare-{glob.escape(task)}-seed{seed}-*")):
        if (folder / RUN_MARK).exists() and _same(read_run(folder)[1], spec):
            return folder
    return None


def _same(one: Spec, other: Spec) -> bool:
    """Whether two specs ask for the same trials.

    Runs from before prompts listed labels are read as listing none: the same where there are none to list.
    """
    from raylora.build import lists_labels
    from raylora.run.folder import settled

    mine, others = (settled(spec).model_dump(exclude={"version", "name", "storage_path"}) for spec in (one, other))
    if mine == others:
        return True
    lists = [spec.pop("list_labels") for spec in (mine["task"], others["task"])]
    return mine == others and not lists_labels(one if lists[0] else other)


def run_name(task: str, seed: int, spec: Spec) -> str:
    """The folder of a run: the same for the same spec, so that a run is taken up again only as what it was."""
    digest = hashlib.sha256(spec.model_dump_json(exclude={"version"}).encode()).hexdigest()[:8]
    return f"compare-{task}-seed{seed}-{digest}"


def read_records(path: str | Path) -> list[Record]:
    """Records that `write_comparison` wrote. Raises UserError if it is no such file."""
    try:
        found = json.loads(Path(path).expanduser().read_text())
        return [{**record, "task": record["task"], "config": record["config"]} for record in found]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError.at(
            "SOURCE", f"{path} holds no records of `raylora compare`, and is no spec (.yaml)", value=str(path)
        ) from None


def merged(records: Sequence[Record]) -> list[Record]:
    """In a fixed order; of the same task, seed and configuration the last one counts."""
    kept = {json.dumps([r["task"], r["seed"], r["config"]], sort_keys=True): r for r in records}
    return [kept[key] for key in sorted(kept)]


def best_rows(records: Sequence[Record]) -> list[Row]:
    """One row per task and method, in the order of first appearance; a diverged run makes its rate the worst."""
    names = method_names(record["config"] for record in records)
    groups: dict[tuple[str, Method], dict[float, list[Record]]] = {}
    for record in records:
        rates = groups.setdefault((record["task"], method_of(record["config"])), {})
        rates.setdefault(float(record["config"]["learning_rate"]), []).append(record)
    return [_row(task, names[method], rates) for (task, method), rates in groups.items()]


def _row(task: str, name: str, rates: Mapping[float, Sequence[Record]]) -> Row:
    """A method on a task, from its runs at each rate."""
    fine = {rate: runs for rate, runs in rates.items() if not any(run["diverged"] for run in runs)}
    metric = next(iter(rates.values()))[0]["metric"]
    if not fine:
        seeds = max(len(runs) for runs in rates.values())
        nan = math.nan
        return Row(task, name, nan, metric, nan, nan, nan, nan, nan, nan, seeds, edge=False)
    rate = best_rate(fine)
    runs = fine[rate]
    return Row(
        task,
        name,
        rate,
        metric,
        _mean(runs, metric),
        _error(runs, metric),
        _mean(runs, "validation_loss"),
        _error(runs, "validation_loss"),
        _trained(runs, "touched_per_step"),
        _trained(runs, "touched_parameters"),
        len(runs),
        rate in (min(rates), max(rates)),
    )


def _trained(runs: Sequence[Record], name: str) -> float:
    """Mean of a count that a variant reports where it does not train all it could; else of what it can train."""
    return sum(float(run.get(name, run["trainable_parameters"])) for run in runs) / len(runs)


def best_rate(by_rate: Mapping[float, Sequence[Record]]) -> float:
    """By validation loss over the seeds that all rates have, or over all of them where they have none in common."""
    common = set.intersection(*({run["seed"] for run in runs} for runs in by_rate.values()))
    losses = {
        rate: _mean([run for run in runs if not common or run["seed"] in common], "validation_loss")
        for rate, runs in by_rate.items()
    }
    return min(sorted(losses), key=lambda rate: losses[rate])


def _mean(runs: Sequence[Record], name: str) -> float:
    return sum(float(run[name]) for run in runs) / len(runs)


def _error(runs: Sequence[Record], name: str) -> float:
    return standard_error([float(run[name]) for run in runs])


def write_comparison(records: Sequence[Record], stem: str | Path) -> list[Path]:
    """Writes `STEM.records.json`, `STEM.md` and `STEM.svg`.

    Raises:
        UserError: matplotlib is missing (extra `report`).
    """
    stem = output_stem(stem)
    source, table, plot = (Path(f"{stem}{ending}") for ending in (".records.json", ".md", ".svg"))
    source.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")
    table.write_text(markdown(records))
    _plot(records, plot)
    return [source, table, plot]


def markdown(records: Sequence[Record]) -> str:
    """The rows as a table: mean ± standard error over the seeds."""
    lines = [
        "| task | method | best rate | score | validation loss | trained per step | ever trained | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in best_rows(records):
        if math.isnan(row.rate):
            lines.append(f"| {row.task} | {row.method} | diverged at each | | | | | {row.seeds} |")
            continue
        edge = " (edge)" if row.edge else ""
        lines.append(
            f"| {row.task} | {row.method} | {row.rate:.2g}{edge} | {row.metric} {row.score:.3f} ± {row.error:.3f} "
            f"| {row.loss:.4f} ± {row.loss_error:.4f} | {row.trained:,.0f} | {row.touched:,.0f} | {row.seeds} |"
        )
    return "\n".join(lines) + "\n"


def _plot(records: Sequence[Record], path: Path) -> None:
    pyplot = load_pyplot("compare")
    tasks = list(dict.fromkeys(record["task"] for record in records))
    names = method_names(record["config"] for record in records)
    figure, axes = pyplot.subplots(
        2, len(tasks), figsize=(5.5 * len(tasks), 7), layout="constrained", sharex="col", squeeze=False
    )
    for column, task in enumerate(tasks):
        mine = [record for record in records if record["task"] == task and not record["diverged"]]
        metric = next(record["metric"] for record in records if record["task"] == task)
        _draw(axes[0][column], mine, metric, names)
        _draw(axes[1][column], mine, "validation_loss", names)
        axes[0][column].set_title(task)
        axes[1][column].set_xlabel("learning rate")
    if axes[0][0].get_legend_handles_labels()[0]:
        axes[0][0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw(axis: Axes, records: Sequence[Record], name: str, names: Mapping[Method, str]) -> None:
    for number, method in enumerate(dict.fromkeys(method_of(record["config"]) for record in records)):
        by_rate: dict[float, list[Record]] = {}
        for record in records:
            if method_of(record["config"]) == method:
                by_rate.setdefault(float(record["config"]["learning_rate"]), []).append(record)
        rates = sorted(by_rate)
        means = [_mean(by_rate[rate], name) for rate in rates]
        errors = [_error(by_rate[rate], name) for rate in rates]
        bars = None if any(math.isnan(error) for error in errors) else errors
        axis.errorbar(rates, means, bars, marker="os^Dv"[number % 5], markersize=4, capsize=2, label=names[method])
    axis.set_xscale("log")
    axis.set_ylabel(name.replace("_", " "))
    axis.grid(alpha=0.3)
