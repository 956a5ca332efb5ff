"""Cost of every variant next to LoRA of the same rank: step time, memory, size, attach time, in one run."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from raylora.bench.arms import Arm, parse_arm
from raylora.errors import UserError
from raylora.progress import Progress

if TYPE_CHECKING:
    import torch

    from trainables.variants.core.costs import Costs

Figures = dict[str, Any]

STEPS = 2  # timed per turn, or a variant's whole cycle of steps where that is longer
LEAST_ROWS = 256  # variants keep an eighth of them, at most 32, to validate on
REPETITIONS = 5  # most turns of a variant
SPREAD = 0.05  # of a variant's turns, above which it gets another one
LIMIT_S = 480.0  # after which nobody gets another one
_SLOW = 10


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rows, length: rows per step and tokens per row. repetitions: most turns of a variant.
        thorough: whether each variant has all of its turns, whatever they say and however long they take.
    """

    rows: int = 4
    length: int = 64
    repetitions: int = REPETITIONS
    thorough: bool = False

    def again(self, seconds: Sequence[float], lora: float, spent_s: float) -> bool:
        """Whether a variant has another turn.

        Args:
            seconds: of a step, in its turns so far. lora: LoRA's in its first turn. spent_s: since the beginning.
        """
        turns = len(seconds)
        if turns == 0:
            return True
        if turns >= self.repetitions or seconds[0] > _SLOW * lora:
            return False
        if self.thorough:
            return True
        unsure = turns < 2 or max(seconds) - min(seconds) > SPREAD * median(seconds)
        return unsure and spent_s < LIMIT_S


THOROUGH = Effort(rows=8, length=128, thorough=True)


def bench_variants(
    model: str,
    *,
    variants: Sequence[str] = (),
    rank: int = 8,
    effort: Effort | None = None,
    dtype: str = "auto",
    quiet: bool = False,
) -> dict[str, Figures]:
    """Trains a few steps with each variant, in the loop and on the kind of batch that trials use.

    Each is timed over its whole cycle of steps, with options under which every matrix is at its rank: for `lelora`
    that is a reward and new strategies every ten steps, served by its policy actor, with all triplets touched that it
    can come to touch. All variants take turns on one base model, so that a machine that slows down slows all of them;
    medians over the turns are reported. A variant has two turns, and more where those differ by more than `SPREAD`, as
    long as there is time; one whose step takes more than ten times LoRA's has one. Attaching is timed with
    decompositions in the cache.

    Peak memory is what the allocator held at most above the base model, from attaching to the end of the steps; on CPUs
    the tensors are counted, in a pass of its own, because the process's size also holds what the system has not taken
    back.

    Args:
        model: alias, folder or hub id.
        variants: names, with options as `name:option=value:..`; if empty all registered ones, of a thorough measurement
            those with hypernetworks at the paper's size too. `lora` is always among them.
        effort: `Effort()` unless given, or `THOROUGH`. The last quarter of a row is completion.

    Returns:
        `{"variants": {name: {"step_time": ratio to lora, "peak_memory": ratio to lora, "trainable": count,
        "attach_s": seconds, "adapter": scalars on the matrices, "hypernetwork": parameters of hypernetworks among the
        trainable ones, "hypernetwork_time": their part of step_time, "hypernetwork_gmac": their multiply-adds per step,
        10^9, "optimizer_mb": optimizer state and what takes its place}}}`.

    Raises:
        UserError: a name is unknown, or a variant cannot be attached to this model at this rank.
    """
    effort = effort or Effort()
    arms = {arm.label: arm for arm in _arms(variants, paper_sizes=effort.thorough)}
    with _actors(arms) as actors:
        return _measure(model, arms, rank, effort, dtype, actors, Progress(quiet=quiet))


@contextlib.contextmanager
def _actors(arms: Mapping[str, Arm]) -> Iterator[dict[str, object]]:
    """The actors that variants declare, by variant, on a local Ray; none is started where nothing asks for one."""
    from raylora.cluster import connected
    from trainables.variants import declared, start_actors

    names = {arm.variant for arm in arms.values()}
    if all(declared(name).actor is None for name in names):
        yield {}
        return
    import ray

    with tempfile.TemporaryDirectory() as folder, connected():
        actors = start_actors(names, Path(folder))
        try:
            yield actors
        finally:
            for actor in actors.values():
                ray.kill(actor)


def _measure(
    model: str,
    arms: Mapping[str, Arm],
    rank: int,
    effort: Effort,
    dtype: str,
    actors: Mapping[str, object],
    progress: Progress,
) -> dict[str, Figures]:
    import torch
    from transformers import AutoModelForCausalLM

    from raylora.models import resolve
    from trainables.run import TrialRun
    from trainables.session import pick_device, pick_dtype
    from trainables.variants import get_variant
    from trainables.variants.core.config import Surroundings
    from trainables.variants.core.costs import Saturating

    names, rows, length, started = list(arms), effort.rows, effort.length, time.monotonic()
    device = pick_device("auto")
    kind = pick_dtype(dtype, device)
    folder = resolve(model, quiet=progress.console.quiet)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=kind).to(device).eval()
    batch = _rows(max(rows, LEAST_ROWS), length, base.config.vocab_size)
    progress.say(f"{model} on {device} in {str(kind).removeprefix('torch.')}, rank {rank}, {rows} x {length} tokens")

    def steps_of(name: str) -> int:
        return max(STEPS, get_variant(arms[name].variant).benchmark.cycle)

    def begin(name: str) -> TrialRun:
        variant = get_variant(arms[name].variant)
        knobs: dict[str, object] = {"rank": rank, "alpha_ratio": 2, "batch_size": rows, "learning_rate": 1e-4}
        around = Surroundings(actor=actors.get(variant.name))
        knobs |= {"variant": variant.name, **variant.benchmark.whole_rank, **arms[name].options}
        try:
            run = TrialRun(base, knobs, batch, _settings(rows, length), pad_id=0, surroundings=around)
        except ValueError as error:
            raise UserError.around(f"--variants {name}: ", error, field="--variants", value=name) from None
        if isinstance(run.variant, Saturating):
            run.variant.saturate()
        return run

    peaks: dict[str, float] = {}
    trainable: dict[str, int] = {}
    costs: dict[str, Costs] = {}
    optimizer_mb: dict[str, float] = {}
    for number, name in enumerate(names, start=1):
        progress.say(f"memory and size: {name} ({number} of {len(names)})")

        def attach_and_train(name: str = name) -> None:
            run = begin(name)
            try:
                # The first step makes the optimizer's state; `saturate` has made the rest as large as it becomes.
                for _ in range(1 + STEPS):
                    run.train_step()
                trainable[name] = run.variant.parameter_count()
                costs[name] = run.variant.costs()
                optimizer_mb[name] = run.metrics()["optimizer_mb"]
            finally:
                run.close()

        begin(name).close()  # fills the cache of decompositions, which is no part of the peak
        gc.collect()
        peaks[name] = peak_bytes(attach_and_train, device, base)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    attaching: dict[str, list[float]] = {name: [] for name in names}
    generating: dict[str, list[float]] = {name: [] for name in names}
    while due := [name for name in names if effort.again(seconds[name], _first(seconds), time.monotonic() - started)]:
        # With those that are measured again, LoRA is, so that their ratio is of the same turns.
        turn = due if "lora" in due or len(seconds["lora"]) >= effort.repetitions else ["lora", *due]
        for number, name in enumerate(turn, start=1):
            if name != "lora" and not effort.again(seconds[name], _first(seconds), time.monotonic() - started):
                continue
            progress.say(f"time: {name} ({number} of {len(turn)}, its turn {len(seconds[name]) + 1})")
            run = begin(name)
            attaching[name].append(run.attach_s)
            try:
                run.train_step()
                # The first step, which also makes the optimizer's state, is left out.
                run.metrics()
                for _ in range(steps_of(name)):
                    run.train_step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                figures = run.metrics()
                seconds[name].append(figures["step_time_s"])
                generating[name].append(figures["hypernetwork_s"] / steps_of(name))
            finally:
                run.close()
    lora = median(seconds["lora"])
    progress.say(f"lora: {lora:.3f} s a step, {peaks['lora'] / 1e6:.0f} MB above the base model")
    return {
        "about": {
            "model": model,
            "device": str(device),
            "dtype": str(kind).removeprefix("torch."),
            "rank": rank,
            "rows": rows,
            "length": length,
            "lora_step_s": lora,
        },
        "variants": {
            name: {
                "step_time": median(seconds[name]) / lora,
                "peak_memory": peaks[name] / peaks["lora"],
                "trainable": trainable[name],
                "attach_s": median(attaching[name]),
                "adapter": costs[name].adapter_parameters,
                "hypernetwork": costs[name].hypernetwork_parameters,
                "hypernetwork_time": median(generating[name]) / lora,
                "hypernetwork_gmac": costs[name].hypernetwork_gmac,
                "optimizer_mb": optimizer_mb[name],
            }
            for name in names
        },
    }


def _first(seconds: Mapping[str, Sequence[float]]) -> float:
    """LoRA's step in its first turn; infinite before it."""
    return seconds["lora"][0] if seconds["lora"] else math.inf


def _arms(wanted: Sequence[str], paper_sizes: bool = False) -> list[Arm]:
    from trainables.variants import VARIANTS, available, declared

    if not wanted:
        # The base is not quantised.
        names = [name for name in available() if declared(name).quantized != "only"]
        sized = [name for name in names if paper_sizes and "hypernet" in VARIANTS[name].options]
        wanted = [*names, *(f"{name}:preset=paper" for name in sized)]
    try:
        arms = {arm.label: arm for arm in (parse_arm(text) for text in wanted)}
    except UserError as error:
        raise UserError.around("--variants ", error, field="--variants") from None
    return [Arm("lora", "lora"), *(arm for label, arm in arms.items() if label != "lora")]


def _settings(rows: int, length: int) -> Any:
    from trainables.protocols import TrainSettings

    return TrainSettings(samples=rows * 100, micro_batch_tokens=rows * length)


def _rows(count: int, length: int, vocabulary: int) -> list[Mapping[str, Any]]:
    draw = random.Random(0)
    ids = [[draw.randrange(vocabulary) for _ in range(length)] for _ in range(count)]
    cut = length - length // 4
    return [{"prompt_ids": row[:cut], "response_ids": row[cut:]} for row in ids]


def peak_bytes(work: Callable[[], object], device: torch.device, base: torch.nn.Module) -> float:
    """Most bytes of tensors that were alive at a time during `work`, above those of `base` and before it."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)
    return _cpu_peak(work, base)


def _cpu_peak(work: Callable[[], object], base: torch.nn.Module) -> float:
    """As `peak_bytes`, counting the storage of every tensor that an operator returns until it is freed.

    Scratch space inside an operator is not seen; the profiler would see it, at 20 times the time.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Ledger(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.held = self.most = 0
            self.known = {t.untyped_storage()._cdata for t in [*base.parameters(), *base.buffers()]}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.book(leaf.untyped_storage())
            return result

        def book(self, storage: torch.UntypedStorage) -> None:
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())
                self.held += storage.nbytes()
                self.most = max(self.most, self.held)

        def free(self, handle: int, size: int) -> None:
            self.known.discard(handle)
            self.held -= size

    with Ledger() as ledger:
        work()
    return float(ledger.most)
