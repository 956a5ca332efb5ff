"""How a trial is shared by processes: here one alone, in `distributed.py` several."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Parallel:
    """How gradients and scores are shared: here one process alone.

    `trainables.distributed` has the forms with several workers. `checkpoints` says whether a trial can be
    saved and loaded in this form.
    """

    rank = 0
    world = 1
    checkpoints = True

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """What to call forward on and to step, from the adapted model and its optimizer."""
        return module, optimizer

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
