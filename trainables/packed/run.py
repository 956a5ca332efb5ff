"""PackedRun: a TrialRun whose forward and backward passes are made together with those of others."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.batching import IGNORE, Batch, trained_tokens
from trainables.exhausted import is_exhausted
from trainables.memory import peak_memory_gb
from trainables.packed.dropout import own_dropouts
from trainables.packed.route import Adapter, GivenBase
from trainables.protocols import Row
from trainables.run import TrialRun, random_state, set_random_state
from trainables.variants.core.config import AdapterConfig, Surroundings

if TYPE_CHECKING:
    from trainables.packed.trunk import Trunk


class PackedRun(TrialRun):
    """One configuration on a twin of the base, which a scheduler trains beside others (`trainables.packed.pack`).

    Its optimizer, schedule, clipping, micro-batches, dropout and position are its own and those that it would have
    alone; the scheduler asks for the next micro-batch (`group`), makes the pass, and gives back the loss (`took`) after
    the gradients are there.

    Args:
        model: a twin of the base model that nobody else attaches to.
        trunk: what its passes go through; None where no two trials can share one over this base.
        others: as those of `TrialRun`.

    Attributes:
        shares: whether its rows can be in a pass with others'; where not, `train_step` is to be called.
        adapter: what a pass has to know of it.
    """

    def __init__(self, model: nn.Module, *others: Any, trunk: Trunk | None, **named: Any) -> None:
        self.trunk, self.shares = trunk, False
        self.adapter = Adapter()
        self._generator = torch.Generator(next(model.parameters()).device)
        self._global: list[Tensor] = []
        self._rows: list[Row] = []
        self._groups: list[list[Row]] = []
        self._step_loss = 0.0
        self._before: Tensor | None = None
        self._highest_gb = 0.0
        super().__init__(model, *others, **named)
        self._reroute()
        self.module.train()

    def _attach(self, config: AdapterConfig, surroundings: Surroundings) -> nn.Module:
        if self.variant.shares_pass and self.trunk is not None:
            matrices = self.variant.check(self.model, config)
            self.shares = not any(matrix.name in self.trunk.unfit for matrix in matrices)
        return super()._attach(config, replace(surroundings, shared=self.shares))

    def _reroute(self) -> None:
        """Tell passes of the adapter as it is now."""
        if not self.shares:
            return
        names = [matrix.name for matrix in self.variant.matrices]
        if self.variant.shares_pass == "factors":
            parts = {name: part for name in names if (part := self.variant.lora_part(name)) is not None}
            self.adapter = Adapter(parts=parts, generator=self._generator)
            return
        layers = {}
        for name in names:
            layer = self.adapted.get_submodule(name)
            own_dropouts(layer, self._generator)
            given = GivenBase()
            layer.base_layer.forward = given
            layers[name] = (layer, given)
        self.adapter = Adapter(layers=layers, generator=self._generator)

    # ---- training -------------------------------------------------------------------------------------

    @property
    def in_step(self) -> bool:
        """Whether a step has begun that is not over."""
        return bool(self._groups)

    def group(self) -> list[Row]:
        """The rows of the next micro-batch, of like length, longest first; begins a step where none is on its way."""
        if not self._groups:
            started = time.perf_counter()
            self._rows = self._begin_step()
            self._restart()
            self._train_s += time.perf_counter() - started
        return self._groups[0]

    def _restart(self) -> None:
        if self._before is None:
            self._before = self._generator.get_state()
        self._groups = self._micro_batches(self._rows)
        self._step_loss = 0.0

    def loss(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What `logits` `(n, k, vocabulary)` of the next micro-batch add to the step's loss, and what to differentiate.

        They differ by the variant's extra loss.
        """
        total = sum(trained_tokens(row) for row in self._rows)
        flat, labels = logits.float().flatten(0, 1), batch.labels.flatten()
        share = F.cross_entropy(flat, labels, ignore_index=IGNORE, reduction="sum") / total
        extra = self.variant.extra_loss() if len(self._groups) == 1 else None
        return share, share if extra is None else share + extra

    def took(self, loss: float, seconds: float) -> None:
        """The next micro-batch's gradients are there; the last one of a step ends it.

        Args:
            loss: what the micro-batch adds to the step's loss.
            seconds: the trial's part of the time that the pass took.
        """
        started = time.perf_counter()
        self._groups.pop(0)
        self._step_loss += loss
        if not self._groups:
            self._before = None
            self._end_step(self._rows, self._step_loss)
        self._train_s += seconds + time.perf_counter() - started

    def repeat_step(self, error: Exception | None = None) -> None:
        """The step on its way is made once more from its first micro-batch, with the same random numbers.

        Args:
            error: where memory ran out though the trial was alone in its pass: its micro-batches are halved.

        Raises:
            NoRoom: they are single rows already.
        """
        if error is not None:
            self._halve(self._rows, error)
        assert self._before is not None
        self._generator.set_state(self._before)
        self._forget_gradients()
        self._restart()

    def train_step(self) -> float:
        """One optimizer step in passes of its own, with a global generator of its own."""
        others = random_state(self.device)
        set_random_state(self.device, self._global)
        try:
            return super().train_step()
        finally:
            self._global = random_state(self.device)
            set_random_state(self.device, others)

    # ---- figures and state ----------------------------------------------------------------------------

    def note_peak(self) -> None:
        """Another trial joins, with which a new peak of the memory that all share begins."""
        self._highest_gb = self._peak_gb()

    def _peak_gb(self) -> float:
        return max(self._highest_gb, peak_memory_gb(self.device))

    def _seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)
        cuda = [torch.Generator(self.device).manual_seed(seed).get_state()] if self.device.type == "cuda" else []
        self._global = [torch.Generator().manual_seed(seed).get_state(), *cuda]

    def _save_random(self, folder: Path) -> None:
        own = self._generator.get_state() if self._before is None else self._before
        torch.save(own if self.shares else self._global[0], folder / self._random_file)

    def _load_random(self, folder: Path) -> None:
        # A trial that was alone until now may have left the state of another kind of generator.
        if (folder / self._random_file).exists():
            state = torch.load(folder / self._random_file, weights_only=True)
            if self.shares:
                self._generator.set_state(state)
            else:
                self._global[0] = state

    @property
    def _random_file(self) -> str:
        return f"rng-{self.device.type}.pt" if self.shares and self.device.type != "cpu" else "rng.pt"

    def load(self, folder: str | Path) -> None:
        super().load(folder)
        self._groups, self._before = [], None
        self._reroute()


def exhausted(error: Exception) -> bool:
    """As `is_exhausted`, and lets go of what did not fit."""
    if not is_exhausted(error):
        return False
    error.__traceback__ = None
    return True
