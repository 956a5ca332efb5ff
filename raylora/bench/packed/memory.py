"""Memory of trials that share passes, beyond their own adapters, optimizers and activations, against one trial's."""

from __future__ import annotations

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylora.bench.packed.arms import Batch, make_rows, open_model
from trainables.protocols import TrainSettings

if TYPE_CHECKING:
    import torch

BATCH = Batch(2, 30)
BAR = 1.3
STEPS = 3


@dataclass(frozen=True)
class Peak:
    """Of a process that holds the model and trains, in MB.

    Attributes:
        peak: most that it held from attaching to the last step: of the whole process on CPUs, allocated on CUDA.
        adapters, gradients, optimizers: of all trials. activations: that a pass keeps for its backward pass.
    """

    peak: float
    adapters: float
    gradients: float
    optimizers: float
    activations: float

    @property
    def rest(self) -> float:
        """What is left for the base and all else."""
        return self.peak - self.adapters - self.gradients - self.optimizers - self.activations


def compare_memory(model: str, pack: int, *, rank: int, variant: str, dtype: str, device: str) -> dict[str, Any]:
    """Peaks of `pack` trials in one pass and of one trial alone, each in a process of its own.

    Returns:
        `packed` and `alone`: `peak_mb`, `adapters_mb`, `gradients_mb`, `optimizers_mb`, `activations_mb` and the
        `rest_mb`; `ratio` of the rests, `pack`, and the `bar`.
    """
    found = {}
    for side, count in (("packed", pack), ("alone", 0)):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found[side] = process.submit(_measure, model, count, rank, variant, dtype, device).result()
    told: dict[str, Any] = {
        side: {f"{name}_mb": value for name, value in {**peak.__dict__, "rest": peak.rest}.items()}
        for side, peak in found.items()
    }
    return {**told, "ratio": found["packed"].rest / found["alone"].rest, "pack": pack, "bar": BAR}


def _measure(model: str, pack: int, rank: int, variant: str, dtype: str, device: str) -> Peak:
    """Of `pack` trials that share passes; 0 for one alone."""
    from trainables.evaluation import pad_token
    from trainables.memory import peak_memory_gb, reset_peak_memory
    from trainables.packed.passes import make_pass
    from trainables.packed.run import PackedRun
    from trainables.packed.trunk import Trunk
    from trainables.packed.twin import twin
    from trainables.run import TrialRun

    base, tokenizer = open_model(model, dtype, device, quiet=True)
    rows = make_rows(32, BATCH.length, base.config.vocab_size)
    settings = TrainSettings(samples=BATCH.rows * STEPS)
    knobs = {"variant": variant, "rank": rank, "alpha_ratio": 2.0, "batch_size": BATCH.rows, "learning_rate": 1e-4}
    pad = pad_token(tokenizer)
    place = next(base.parameters()).device
    gc.collect()
    reset_peak_memory(place)
    saved = _Saved()
    runs: list[Any]
    if not pack:
        runs = [TrialRun(base, knobs, rows, settings, pad_id=pad)]
        saved.leave_out(base, runs)
        for _ in range(STEPS):
            with saved.counting():
                runs[0].train_step()
    else:
        trunk = Trunk(base)
        runs = [PackedRun(twin(base), knobs, rows, settings, pad_id=pad, trunk=trunk) for _ in range(pack)]
        saved.leave_out(base, runs)
        for _ in range(STEPS):
            with saved.counting():
                losses = make_pass(trunk, runs, pad)
            for run, loss in zip(runs, losses, strict=True):
                run.took(loss, 0.0)
    trained = [parameter for run in runs for parameter in run.parameters]
    size = sum(parameter.numel() * parameter.element_size() for parameter in trained) / 1e6
    optimizers = sum(run.metrics()["optimizer_mb"] for run in runs)
    return Peak(1000 * peak_memory_gb(place), size, size, optimizers, saved.most / 1e6)


class _Saved:
    """Counts what passes keep for their backward passes, weights aside."""

    def __init__(self) -> None:
        self.most = 0.0
        self._weights: set[int] = set()
        self._held: dict[int, int] = {}

    def leave_out(self, base: torch.nn.Module, runs: list[Any]) -> None:
        weights = [*base.parameters(), *(parameter for run in runs for parameter in run.parameters)]
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}

    def counting(self) -> AbstractContextManager[None]:
        """Within, one pass is made forward and backward."""
        import torch

        self._held = {}
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._held[storage.data_ptr()] = storage.nbytes()
            self.most = max(self.most, float(sum(self._held.values())))
        return tensor
