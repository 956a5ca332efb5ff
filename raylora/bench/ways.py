"""One way to train, measured: the work of each process of `bench.scaling`."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from trainables.parallel import Parallel

STEPS = 2  # timed per turn, after one that is not
# Of glibc's mallopt: above which sizes memory is given back as soon as it is freed.
_TRIM, _MMAP = -1, -3


@dataclass(frozen=True)
class Way:
    """How a trial is trained.

    Attributes:
        settings: fields of `TrainSettings`.
        strategy, deepspeed_config: as the spec's `resources` has them, for several workers; empty for one alone.
        pack: trials that go through the model in one pass.
        quantization: of the base, as the spec has it. dense: its matrices are then made dense again, so that it has the
            values of a quantised base and the arithmetic of another one.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = ""
    deepspeed_config: str = ""
    pack: int = 1
    quantization: str = "none"
    dense: bool = False


@dataclass(frozen=True)
class Task:
    """What is trained, whatever the way.

    Attributes:
        dtype: of the base, by name. rank: of the adapter. rows, longest: see `bench_scaling`.
        cores: threads of one process alone; workers share them.
    """

    folder: str
    dtype: str
    rank: int
    rows: int
    longest: int
    cores: int


@dataclass(frozen=True)
class Taken:
    """Of a worker: `seconds` and `cpu_s` of a step of one trial, `peak` bytes, and `losses[trial][step]`."""

    device: str
    dtype: str
    seconds: float
    cpu_s: float
    peak: float
    losses: list[list[float]]


def train_in(rank: int, way: Way, task: Task, memory: bool) -> Taken | None:
    """A few steps with the model loaded for them, in a process of a group; None for those that the way does not need.

    Args:
        rank: of this process.
        memory: whether the peak is what is asked for: seconds mean less then.
    """
    import torch
    import torch.distributed as dist

    from trainables.memory import peak_memory_gb, reset_peak_memory
    from trainables.session import load_model, pick_device

    if rank and not way.strategy:
        return None
    steps = 1 if memory else STEPS
    torch.set_num_threads(max(1, task.cores // (dist.get_world_size() if way.strategy else 1)))
    device = pick_device("auto")
    _give_back_at_once(memory)
    # Libraries are no part of what a way needs: which way pays for them would depend on the order.
    parallel = _parallel(way)
    for wanted, name in (
        (way.quantization != "none", "bitsandbytes"),
        (way.settings.get("compile"), "torch._inductor"),
    ):
        if wanted:
            importlib.import_module(name)
    before = _held(device)
    base, _ = load_model(task.folder, task.dtype, where=parallel.loads_on, quantization=way.quantization)
    if way.dense:
        make_dense(base)
    train, close = _trials(way, task, base, parallel)
    try:
        gc.collect()
        reset_peak_memory(device)
        losses = [train()]
        _finish(device)
        started, cpu_started = time.perf_counter(), time.process_time()
        losses += [train() for _ in range(steps)]
        _finish(device)
        share = 1 / steps / way.pack
        return Taken(
            str(device),
            str(next(base.parameters()).dtype).removeprefix("torch."),
            share * (time.perf_counter() - started),
            share * (time.process_time() - cpu_started),
            1e9 * peak_memory_gb(device) - before,
            [list(trial) for trial in zip(*losses, strict=True)],
        )
    finally:
        close()


def _parallel(way: Way) -> Parallel:
    from clusters import deepspeed_config
    from trainables.distributed import WorkerGroup, make_parallel
    from trainables.parallel import Parallel
    from trainables.protocols import TrainSettings

    if not way.strategy:
        return Parallel()
    config = str(deepspeed_config(way.deepspeed_config)) if way.deepspeed_config else None
    group = WorkerGroup(strategy=way.strategy, deepspeed_config=config)
    return make_parallel(group, "auto", TrainSettings(samples=1).max_grad_norm)


def _trials(
    way: Way, task: Task, base: torch.nn.Module, parallel: Parallel
) -> tuple[Callable[[], list[float]], Callable[[], object]]:
    """What takes a step and returns the loss of each trial, and what gives the base back."""
    from trainables.protocols import TrainSettings
    from trainables.run import TrialRun

    rows = make_rows(task.rows, task.longest, int(base.config.vocab_size))
    knobs = {"variant": "lora", "rank": task.rank, "alpha_ratio": 2, "batch_size": task.rows, "learning_rate": 1e-4}
    settings = TrainSettings(samples=task.rows * 100, micro_batch_tokens=task.rows * task.longest, **way.settings)
    if way.pack == 1:
        run = TrialRun(base, knobs, rows, settings, pad_id=0, parallel=parallel)
        run.module.train()
        return lambda: [run.train_step()], run.close
    from trainables.packed.passes import make_pass
    from trainables.packed.run import PackedRun
    from trainables.packed.trunk import Trunk
    from trainables.packed.twin import twin

    trunk = Trunk(base)
    runs = [PackedRun(twin(base), knobs, rows, settings, pad_id=0, trunk=trunk) for _ in range(way.pack)]

    def step() -> list[float]:
        losses = make_pass(trunk, runs, 0)
        for run, loss in zip(runs, losses, strict=True):
            run.took(loss, 0.0)
        return losses

    def close() -> None:
        for run in runs:
            run.close()

    return step, close


def make_dense(model: torch.nn.Module) -> None:
    """Puts dense layers with the same values in the place of quantised ones."""
    from torch import nn

    from trainables.quantization import QuantizedLinear

    for name, layer in list(model.named_modules()):
        if isinstance(layer, QuantizedLinear):
            dense = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
            dense.weight, dense.bias = nn.Parameter(layer.weight, requires_grad=False), layer.bias
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, dense)


def make_rows(count: int, longest: int, vocabulary: int) -> list[Mapping[str, Any]]:
    """Random tokens, from an eighth of the longest row up to that; the last quarter of each is trained on."""
    draw = random.Random(0)
    found: list[Mapping[str, Any]] = []
    for place in range(count):
        length = max(4, round(longest * (1 / 8 + 7 / 8 * (place + 1) / count)))
        ids, cut = [draw.randrange(vocabulary) for _ in range(length)], length - length // 4
        found.append({"prompt_ids": ids[:cut], "response_ids": ids[cut:]})
    return found


def _finish(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def _held(device: torch.device) -> float:
    """Bytes that the process holds now, by the measure of the peak."""
    import torch

    from trainables.memory import peak_memory_gb, reset_peak_memory

    gc.collect()
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated())
    with contextlib.suppress(AttributeError, OSError):  # of glibc alone
        ctypes.CDLL(None).malloc_trim(0)
    reset_peak_memory(device)
    return 1e9 * peak_memory_gb(device)


def _give_back_at_once(wanted: bool) -> None:
    """Whether freed tensors leave the process at once, so that its size is theirs; that takes time."""
    with contextlib.suppress(AttributeError, OSError):  # of glibc alone
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP, 256 << 10 if wanted else 32 << 20)
        mallopt(_TRIM, 256 << 10 if wanted else 64 << 20)
