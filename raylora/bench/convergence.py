"""Whether one variant reaches another's loss in fewer steps: loss curves of variants, each at its best rate.

Each arm (a variant with options) is trained at several learning rates with the first seed, then at the best of them
with the other seeds; every run is one JSON file. Best is the lowest validation loss at the end; a best rate at the end
of its range extends the range. Runs whose file exists are not repeated, so an interrupted measurement goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.bench.arms import Arm
from raylora.errors import UserError
from raylora.outputs import output_stem, writable_folder
from raylora.progress import Progress
from raylora.results import standard_error
from raylora.spec_text import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from raylora.spec import Spec

# Steps to the next rate where a range is extended, and how often it may be at either end.
_FACTOR, _EXTENSIONS = 2.0, 3


def bench_convergence(
    spec: Spec,
    folder: str | Path,
    *,
    arms: Sequence[Arm],
    rates: Mapping[str, Sequence[float]],
    seeds: int = 3,
    checks: int = 8,
    quiet: bool = False,
) -> list[Path]:
    """Trains what is missing in `folder`, and returns all its run files.

    Args:
        spec: model, task and training; rank, alpha, batch size and dropout are the first values of its space. Its first
            seed is `spec.seed`.
        folder: gets one JSON per run: arm, rate, seed, steps, `loss` of every step (nats per completion token, before
            the step), `checks` as [step, validation loss], the validation's scores at the end, wall time of the
            training (checks apart), peak memory, parameters.
        rates: arm label -> learning rates, ascending; at least three.
        seeds: runs of each arm at its best rate.
        checks: how often the validation loss is taken during a run, at even distances, and once before the first step.
            0 for never.

    Raises:
        UserError: fewer than three rates, a configuration that cannot be attached, or a task that cannot be read.
    """
    for arm in arms:
        if len(rates[arm.label]) < 3:
            raise UserError(f"--rates: {len(rates[arm.label])} for {arm.label}; allowed: at least 3")
    writable_folder(Path(folder).expanduser(), f"--to {folder}")
    runner = _Runner(spec, Path(folder).expanduser(), Progress(quiet=quiet), checks)
    files: list[Path] = []
    for arm in arms:
        tried = {rate: runner.run(arm, rate, spec.seed) for rate in sorted(rates[arm.label])}
        for _ in range(_EXTENSIONS):
            best = best_rate({rate: read_run(file) for rate, file in tried.items()})
            ordered = sorted(tried)
            if best not in (ordered[0], ordered[-1]):
                break
            further = best / _FACTOR if best == ordered[0] else best * _FACTOR
            runner.progress.say(f"{arm.label}: best rate {best:g} is at the end of its range, trying {further:g}")
            tried[further] = runner.run(arm, further, spec.seed)
        best = best_rate({rate: read_run(file) for rate, file in tried.items()})
        files += tried.values()
        files += [runner.run(arm, best, spec.seed + i) for i in range(1, seeds)]
    return files


def read_run(file: Path) -> dict[str, Any]:
    """One run's record. Raises UserError where the file is none."""
    try:
        run = json.loads(file.read_text())
        return {**run, "arm": str(run["arm"]), "about": dict(run["about"]), "loss": list(run["loss"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file}: no run of `raylora bench convergence`; remove it, or name another folder") from None


def best_rate(runs: Mapping[float, Mapping[str, Any]]) -> float:
    """The rate of the lowest validation loss; diverged runs are worst, ties go to the smaller rate."""
    return min(sorted(runs), key=lambda rate: _final(runs[rate]))


def _final(run: Mapping[str, Any]) -> float:
    value = run.get("validation_loss")
    return math.inf if run["diverged"] or value is None or not math.isfinite(value) else float(value)


class _Runner:
    """Holds model and data; trains one run at a time."""

    def __init__(self, spec: Spec, folder: Path, progress: Progress, checks: int) -> None:
        self.spec, self.folder, self.progress, self.checks = spec, folder, progress, checks
        self._loaded: tuple[Any, Any, Any, list[Any], list[Any]] | None = None

    def run(self, arm: Arm, rate: float, seed: int) -> Path:
        file = self.folder / f"{arm.label.replace(':', '_').replace('=', '-')}_rate-{rate:g}_seed-{seed}.json"
        if file.is_file():
            about, found = self.about(), read_run(file)["about"]
            for name in {**about, **found}:
                if found.get(name) != about.get(name):
                    raise UserError(
                        f"--to {self.folder}: {file.name} has {name} = {short(found.get(name))}, not "
                        f"{short(about.get(name))}; name another folder"
                    )
        else:
            record = self._train(arm, rate, seed)
            fresh = file.with_suffix(".part")
            fresh.write_text(json.dumps(record) + "\n")
            fresh.replace(file)
            shown = "diverged" if record["diverged"] else f"validation loss {record['validation_loss']:.4f}"
            self.progress.say(f"{arm.label} rate {rate:g} seed {seed}: {shown}, {record['train_s']:.0f} s")
        return file

    def about(self) -> dict[str, Any]:
        """What is the same for all runs of a folder."""
        spec, space = self.spec, self.spec.space
        task = spec.task.model_dump(mode="json", exclude={"path"}, exclude_defaults=True)
        alpha = {"alpha": space.alpha[0]} if space.alpha else {"alpha_ratio": (space.alpha_ratio or [1.0])[0]}
        train = spec.train.model_dump(mode="json", exclude_defaults=True)
        knobs = {"rank": space.rank[0], "batch_size": space.batch_size[0], "dropout": space.dropout[0], **alpha}
        common = {"model": spec.model, "dtype": spec.dtype, "task": task, "data_seed": spec.seed, "train": train}
        placed = {} if space.placement == "all-linear" else {"placement": space.placement}
        return {**common, **placed, "checks": self.checks, **knobs}

    def _load(self) -> tuple[Any, Any, Any, list[Any], list[Any]]:
        """Base model, tokenizer, task, train rows, validation rows; read once."""
        if self._loaded is None:
            from transformers import AutoModelForCausalLM, AutoTokenizer

            from raylora import data, models
            from raylora.build import build_data, build_task
            from raylora.cluster import connected
            from trainables.session import pick_device, pick_dtype

            spec = self.spec
            source = models.resolve(spec.model)
            task = build_task(spec)
            # Ray reads and tokenises; the training needs its processes no more.
            with connected():
                prepared = build_data(spec, task, str(source))
                rows = data.rows_from_refs(prepared.proxy), data.rows_from_refs(prepared.validation)
            device = pick_device("auto")
            base = AutoModelForCausalLM.from_pretrained(source, dtype=pick_dtype(spec.dtype, device)).to(device).eval()
            self._loaded = (base, AutoTokenizer.from_pretrained(source), task, *rows)
        return self._loaded

    def _train(self, arm: Arm, rate: float, seed: int) -> dict[str, Any]:
        from raylora.build import train_settings
        from trainables.run import TrialRun, pad_token

        spec, about = self.spec, self.about()
        base, tokenizer, task, train, validation = self._load()
        settings = replace(train_settings(spec, len(train)), seed=seed)
        names = ("rank", "alpha", "alpha_ratio", "batch_size", "dropout")
        common = {name: about[name] for name in names if name in about}
        knobs = {"variant": arm.variant, "learning_rate": rate, **common, **arm.options}
        try:
            run = TrialRun(base, knobs, train, settings, pad_id=pad_token(tokenizer))
        except ValueError as error:
            raise UserError(f"--arms {arm.label}: {error}") from None
        try:
            losses: list[float] = []
            wanted = {round(run.steps * i / self.checks) for i in range(self.checks + 1)} if self.checks else set()
            checks: list[tuple[int, float]] = []
            while True:
                if run.step in wanted and not run.diverged:
                    checks.append((run.step, run.validation_loss(validation)))
                if run.done:
                    break
                run.module.train()
                losses.append(run.train_step())
            figures = run.metrics()
            scores = {} if run.diverged else run.evaluate(validation, task, tokenizer)
        finally:
            run.close()
        kept = (
            "trainable_parameters",
            "adapter_parameters",
            "hypernetwork_parameters",
            "hypernetwork_s",
            "optimizer_mb",
            "peak_memory_gb",
            "train_s",
            "diverged",
        )
        return {
            "arm": arm.label,
            "knobs": knobs,
            "seed": seed,
            "about": about,
            "metric": task.metric,
            "loss": [_finite(loss) for loss in losses],
            "checks": [[step, _finite(loss)] for step, loss in checks],
            **{name: figures[name] for name in kept},
            **scores,
        }


def _finite(loss: float) -> float | None:
    return round(loss, 6) if math.isfinite(loss) else None


# -- table and plot ---------------------------------------------------------------------------------------


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
        raise UserError(f"{folder}: no run there; measure with `raylora bench convergence`")
    for name in dict.fromkeys(name for run in runs for name in run["about"]):
        if any(run["about"].get(name) != runs[0]["about"].get(name) for run in runs):
            raise UserError(f"{folder}: the runs differ in {name}; keep one folder for each")
    steps = max(len(run["loss"]) for run in runs)
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if not run["diverged"] and len(run["loss"]) != steps:
            raise UserError(f"{folder}: a run of {run['arm']} has {len(run['loss'])} steps, others {steps}")
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
    return [[x for x in losses[a:b] if x is not None] for a, b in zip(bounds, bounds[1:], strict=False)]


def quarters_less(curve: Curve, plain: Curve) -> list[list[float]]:
    """Mean loss less the plain arm's in each quarter, one row per seed that both have.

    A seed gives both the same batches in the same order, so what batches differ in cancels.
    """
    others = {run["seed"]: run for run in plain.finished}
    rows = []
    for run in curve.finished:
        if run["seed"] in others:
            pairs = zip(run["loss"], others[run["seed"]]["loss"], strict=True)
            rows.append([_mean(part) for part in _quarters([x - y if None not in (x, y) else None for x, y in pairs])])
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
        ["arm", "best rate", "of", "training loss", "validation loss", metric, "steps to the plain final loss"]
        + [
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
        plain = plain_counterpart(curve.label, list(by_label)) or curve.label
        finals = by_label[plain].finals
        targets = [finals.get(run["seed"], _mean(list(finals.values()))) for run in curve.finished]
        reached = [steps_to(losses, target) for losses, target in zip(curve.losses, targets, strict=True)]

        def told(name: str, curve: Curve = curve) -> str:
            return _with_error([float(run[name]) for run in curve.runs if name in run])

        rows.append(
            [
                curve.label,
                f"{curve.rate:g}" + (" (edge)" if curve.edge else ""),
                ", ".join(f"{rate:g}" for rate in curve.rates),
                _with_error([losses[-1] for losses in curve.losses]),
                told("validation_loss"),
                told(metric),
                f"{_steps(reached)} of {len(curve.losses[0]) if curve.losses else 0}",
                "" if curve is by_label[plain] else _quarterly(quarters_less(curve, by_label[plain])),
                "; ".join(filter(None, (_steps(validation_steps(curve, by_label[plain], part)) for part in (0.5, 1)))),
                "" if curve is by_label[plain] else _quarterly(validation_less(curve, by_label[plain])),
                *(f"{_mean([float(run[n]) for run in curve.runs]):.0f}" for n in ("train_s", "hypernetwork_s")),
                f"{_mean([float(run['peak_memory_gb']) for run in curve.runs]):.2f}",
                f"{_mean([float(run['optimizer_mb']) for run in curve.runs]):.1f}",
                *(f"{int(curve.runs[0][n]):,}" for n in ("adapter_parameters", "hypernetwork_parameters")),
            ]
        )
    return rows


def _steps(found: Sequence[int | None]) -> str:
    return ", ".join("never" if n is None else str(n) for n in found)


def _quarterly(rows: Sequence[Sequence[float]]) -> str:
    """Means over the seeds with their standard errors."""
    shown = []
    for column in zip(*rows, strict=True):
        error = f" ± {standard_error(column):.3f}" if len(column) > 1 else ""
        shown.append(f"{_mean(column):+.3f}{error}")
    return ", ".join(shown)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _with_error(values: Sequence[float]) -> str:
    if not values:
        return "diverged"
    mean = f"{_mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {standard_error(values):.3f}"


def write_convergence(folder: str | Path, stem: str | Path) -> list[Path]:
    """Writes `STEM.md`, the table, and `STEM.svg`, the loss curves, from the runs of a folder.

    Raises:
        UserError: as `read_curves`, or matplotlib is missing (extra `report`).
    """
    curves = read_curves(folder)
    stem = output_stem(stem)
    table, plot = Path(f"{stem}.md"), Path(f"{stem}.svg")
    head, *rows = convergence_table(curves)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    table.write_text("\n".join(lines) + "\n")
    _plot(curves, plot)
    return [table, plot]


def _plot(curves: Sequence[Curve], path: Path) -> None:
    from raylora.plots import load_pyplot

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
    axis.plot(steps, [_mean(c) for c in columns], color=f"C{number}", label=label)
    low, high = [min(c) for c in columns], [max(c) for c in columns]
    axis.fill_between(steps, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
