"""What ways to make a model fit, and to share a trial among workers, cost and save, in one run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from raylora.bench.crew import Crew
from raylora.bench.ways import Taken, Task, Way, train_in
from raylora.errors import UserError
from raylora.progress import Progress

PACKING = {"pack_sequences": True}
CHECKPOINTING = {"gradient_checkpointing": True}
WAYS = {
    "plain": Way(),
    "gradient_checkpointing": Way(settings=CHECKPOINTING),
    "pack_sequences": Way(settings=PACKING),
    "gradient_checkpointing, pack_sequences": Way(settings=CHECKPOINTING | PACKING),
    "adapter_dtype: bfloat16": Way(settings={"adapter_dtype": "bfloat16"}),
    "pack: 4": Way(pack=4),
    "compile": Way(settings={"compile": True}),
    "nf4": Way(quantization="nf4"),
    "nf4, gradient_checkpointing": Way(quantization="nf4", settings=CHECKPOINTING),
    "int8": Way(quantization="int8"),
    "ddp": Way(strategy="ddp"),
    "fsdp": Way(strategy="fsdp"),
    "zero1": Way(strategy="deepspeed", deepspeed_config="zero1"),
    "zero2": Way(strategy="deepspeed", deepspeed_config="zero2"),
    "zero3": Way(strategy="deepspeed", deepspeed_config="zero3"),
    "zero3-offload": Way(strategy="deepspeed", deepspeed_config="zero3-offload"),
}


def bench_scaling(
    model: str,
    *,
    ways: Sequence[str] = (),
    rows: int = 8,
    longest: int = 128,
    rank: int = 8,
    workers: int = 2,
    turns: int = 3,
    dtype: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains LoRA in each way on the same rows, in turns, so that a machine that slows down slows all of them.

    `plain` is one process with all cores, or `OMP_NUM_THREADS` threads. Where workers share a trial they share these
    too, and the rows of its steps; with GPUs each worker has one of its own.

    Args:
        model: alias, folder or hub id.
        ways: of `WAYS`; if empty all that run here. `plain` is always among them.
        rows: per step; their lengths are spread evenly from an eighth of `longest` up to it, and the last quarter of
            each is trained on.
        workers: of the ways that share a trial.
        turns: of each way; medians are reported.

    Returns:
        `about`; `left_out`, ways that do not run here and why; and `ways`: of each its `workers`, as ratios to plain
        `step_time` (of one trial), `cpu_time` (of all processes, which says more on a busy machine) and `peak_memory`
        (of the worker that needs most, the base model included, after loading and attaching), and `loss`, the largest
        relative difference from plain's losses. Over quantised bases `loss` is that from training over a dense base
        of the same values, and `loss_from_plain` what quantising changes; elsewhere that is None.

    Raises:
        UserError: no such way, or more workers than rows.
    """
    from raylora.models import resolve

    progress, left_out = Progress(quiet=quiet), {}
    chosen = _chosen(ways)
    if workers > rows:
        raise UserError.at("--workers", f"{workers}; allowed: at most one a row ({rows})", value=workers)
    for name, way in list(chosen.items()):
        if why := _why_not(way):
            del chosen[name]
            left_out[name] = why
            progress.say(f"left out: {name} ({why})")
    task = Task(str(resolve(model, quiet=quiet)), dtype, rank, rows, longest, _threads())
    peaks: dict[str, float] = {}
    found: dict[str, _Turns] = {name: _Turns() for name in chosen}
    with Crew(workers) as crew:
        # Libraries that a process loads with its first model are no part of what the first way needs.
        crew.run(train_in, WAYS["ddp"], task, True)
        for name, way in chosen.items():
            progress.say(f"memory: {name}")
            peaks[name] = max(one.peak for one in crew.run(train_in, way, task, True) if one is not None)
        for turn in range(turns):
            for name, way in chosen.items():
                progress.say(f"time: {name} (turn {turn + 1} of {turns})")
                found[name].add([one for one in crew.run(train_in, way, task, False) if one is not None])
        dense = {kind: _over_dense(crew, kind, task, progress) for kind in _kinds(chosen.values())}
    plain = found["plain"]
    return {
        "about": {
            "model": model,
            "device": plain.device,
            "dtype": plain.dtype,
            "rank": rank,
            "rows": rows,
            "longest": longest,
            "workers": workers,
            "cores": task.cores,
            "plain_step_s": median(plain.seconds),
            "plain_peak_mb": peaks["plain"] / 1e6,
        },
        "left_out": left_out,
        "ways": {
            name: {
                "workers": workers if way.strategy else 1,
                "step_time": median(found[name].seconds) / median(plain.seconds),
                "cpu_time": median(found[name].cpu_s) / median(plain.cpu_s),
                "peak_memory": peaks[name] / peaks["plain"],
                "loss": found[name].apart(dense.get(way.quantization, plain.losses[0])),
                "loss_from_plain": found[name].apart(plain.losses[0]) if way.quantization in dense else None,
            }
            for name, way in chosen.items()
        },
    }


def _kinds(ways: Iterable[Way]) -> list[str]:
    return sorted({way.quantization for way in ways} - {"none"})


def _over_dense(crew: Crew, kind: str, task: Task, progress: Progress) -> list[float]:
    """The losses of the timed steps over a dense base of the values that this kind of quantising leaves."""
    progress.say(f"losses: a dense base of {kind}'s values")
    taken = crew.run(train_in, Way(quantization=kind, dense=True), task, False)
    return next(one for one in taken if one is not None).losses[0]


@dataclass
class _Turns:
    """What a way's turns took; losses of each trial of the last turn."""

    device: str = ""
    dtype: str = ""
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)

    def add(self, workers: Sequence[Taken]) -> None:
        self.device, self.dtype, self.losses = workers[0].device, workers[0].dtype, workers[0].losses
        self.seconds.append(max(one.seconds for one in workers))
        self.cpu_s.append(sum(one.cpu_s for one in workers))

    def apart(self, losses: Sequence[float]) -> float:
        """Largest relative difference of any trial's losses from these."""
        return max(_apart(own, losses) for own in self.losses)


def _apart(losses: Sequence[float], plain: Sequence[float]) -> float:
    """Largest relative difference."""
    return max(abs(one - other) / abs(other) for one, other in zip(losses, plain, strict=True))


def _chosen(names: Sequence[str]) -> dict[str, Way]:
    for name in names:
        if name not in WAYS:
            raise UserError.at("--ways", f"{name}; allowed: {'; '.join(WAYS)}", value=name, allowed=list(WAYS))
    return {name: way for name, way in WAYS.items() if not names or name in {"plain", *names}}


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _why_not(way: Way) -> str | None:
    """What this machine lacks for a way; None where it runs."""
    if way.strategy == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        return "not installed; pip install 'raylora[deepspeed]'"
    if way.quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed; pip install 'raylora[quantization]'"
    if way.settings.get("compile"):
        from trainables.compiling import why_no_compiler
        from trainables.session import pick_device

        return why_no_compiler(pick_device("auto"))
    return None
