"""Whether one variant reaches another's loss in fewer steps: loss curves of variants, each at its best rate.

Each arm (a variant with options) is trained at several learning rates with the first seed, then at the best of them
with the other seeds; every run is one JSON file. Best is the lowest validation loss at the end; a best rate at the end
of its range extends the range. Runs whose file exists are not repeated, so an interrupted measurement goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.bench.arms import Arm
from raylora.bench.records import check_about, read_record
from raylora.errors import UserError
from raylora.progress import Progress
from raylora.spec.paths import writable_folder
from trainables.files import replace_text

if TYPE_CHECKING:
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
            raise UserError.at(
                "--rates", f"{len(rates[arm.label])} for {arm.label}; allowed: at least 3", value=list(rates[arm.label])
            )
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
    fields = {"arm": str, "about": dict, "loss": list}
    return read_record(file, "run of `raylora bench convergence`", fields)


def best_rate(runs: Mapping[float, Mapping[str, object]]) -> float:
    """The rate of the lowest validation loss; diverged runs are worst, ties go to the smaller rate."""
    return min(sorted(runs), key=lambda rate: _final(runs[rate]))


def _final(run: Mapping[str, Any]) -> float:
    value = run.get("validation_loss")
    return math.inf if run["diverged"] or value is None or not math.isfinite(value) else float(value)


class _Runner:
    """Holds model and data; trains one run at a time."""

    def __init__(self, spec: Spec, folder: Path, progress: Progress, checks: int) -> None:
        self.spec, self.folder, self.progress, self.checks = spec, folder, progress, checks
        self._loaded: tuple[object, object, object, Sequence[object], Sequence[object]] | None = None

    def run(self, arm: Arm, rate: float, seed: int) -> Path:
        file = self.folder / f"{arm.label.replace(':', '_').replace('=', '-')}_rate-{rate:g}_seed-{seed}.json"
        if file.is_file():
            check_about(file, read_run(file)["about"], self.about())
        else:
            record = self._train(arm, rate, seed)
            replace_text(file, json.dumps(record) + "\n")
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

    def _load(self) -> tuple[Any, Any, Any, Sequence[Any], Sequence[Any]]:
        """Base model, tokenizer, task, train rows, validation rows; read once."""
        if self._loaded is None:
            from raylora import models
            from raylora.build import build_data, build_task
            from raylora.cluster import connected
            from trainables.session import load_model

            spec = self.spec
            source = models.resolve(spec.model)
            task = build_task(spec)
            # Ray reads and tokenises; the training needs its processes no more.
            with connected():
                prepared = build_data(spec, task, str(source))
                rows = prepared.proxy, prepared.validation
            self._loaded = (*load_model(source, spec.dtype), task, *rows)
        return self._loaded

    def _train(self, arm: Arm, rate: float, seed: int) -> dict[str, Any]:
        from raylora.build import train_settings
        from trainables.evaluation import pad_token
        from trainables.run import TrialRun

        spec, about = self.spec, self.about()
        base, tokenizer, task, train, validation = self._load()
        settings = replace(train_settings(spec, len(train)), seed=seed)
        names = ("rank", "alpha", "alpha_ratio", "batch_size", "dropout")
        common = {name: about[name] for name in names if name in about}
        knobs = {"variant": arm.variant, "learning_rate": rate, **common, **arm.options}
        try:
            run = TrialRun(base, knobs, train, settings, pad_id=pad_token(tokenizer))
        except ValueError as error:
            raise UserError.around(f"--arms {arm.label}: ", error, field="--arms", value=arm.label) from None
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
            scores = {} if run.diverged else run.evaluate(validation, task.scoring, tokenizer)
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
