"""How a trial is shared by processes: here one alone, in `distributed.py` several."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Parallel:
    """How gradients and scores are shared: here one process alone.

    `trainables.distributed` has DDP, `trainables.fsdp` and `trainables.zero` the forms that partition.

    Attributes:
        loads_on: where the base model is loaded; None for the device that the trial is trained on.
    """

    rank = 0
    world = 1
    loads_on: str | None = None

    def device(self, module: nn.Module) -> torch.device:
        """What the model computes on."""
        return next(module.parameters()).device

    def prepare(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, added: Sequence[nn.Parameter] = ()
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """What to call forward on and to step, from the adapted model and its optimizer.

        Args:
            added: the parameters that are not the base model's, trained or not.
        """
        return module, optimizer

    def lost(self, error: Exception) -> bool:
        """Whether an error says that another worker is gone, rather than what is wrong with the trial."""
        return False

    def release(self) -> None:
        """Undo `prepare`: each worker has the base model whole again, with the bits that it had."""

    @contextlib.contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        """Within, parameters that are partitioned can be read whole. All workers have to enter it."""
        yield

    @contextlib.contextmanager
    def serving(self, module: nn.Module) -> Iterator[None]:
        """Within, each worker may call the adapted or bare model as often as its own rows need."""
        yield

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """As one worker's optimizer would say it, however many share it. All workers have to ask."""
        return optimizer.state_dict()

    def load_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any], load: Callable[[], None]) -> None:
        """Go on from `optimizer_state`.

        Args:
            load: writes the trained parameters' values, in place.
        """
        load()
        optimizer.load_state_dict(state)

    def backward(self, module: nn.Module, loss: Tensor) -> None:
        loss.backward()

    def accumulating(self, module: nn.Module, last: bool) -> contextlib.AbstractContextManager[object]:
        """Around each micro-batch; gradients are exchanged on the last one of a global batch."""
        return contextlib.nullcontext()

    def step(self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], max_grad_norm: float) -> bool:
        """Clip and step; False, and no step, where the gradient is not finite."""
        limit = max_grad_norm if max_grad_norm > 0 else math.inf
        if not bool(torch.isfinite(torch.nn.utils.clip_grad_norm_(parameters, limit))):
            return False
        optimizer.step()
        return True

    def zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the workers."""
        return [float(v) for v in values]

    def gather(self, value: object) -> list[Any]:
        """What each of the workers has, in the order of their ranks."""
        return [value]

    def any(self, here: bool) -> bool:
        """Whether it is so for some worker: all are told the same."""
        return self.sum([float(here)])[0] > 0

    def late(self, deadline: float) -> bool:
        """Whether it is past the deadline (seconds since the epoch) for some worker: all are told the same."""
        return math.isfinite(deadline) and self.any(time.time() >= deadline)
