"""Workers of one trial over torch.distributed, and DDP, the plain way to share it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainables.parallel import Parallel


class Workers(Parallel):
    """The processes of the current torch.distributed group: what they say to each other.

    Attributes:
        before: called before they exchange anything; see `lockstep`.
    """

    before: Callable[[], None] | None = None

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def lost(self, error: Exception) -> bool:
        # NCCL's errors have a class, gloo's only a text, which names its sources.
        return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))

    def sum(self, values: Sequence[float]) -> list[float]:
        if self.before is not None:
            self.before()
        return self.add(values)

    def gather(self, value: object) -> list[Any]:
        if self.before is not None:
            self.before()
        parts: list[object] = [None] * self.world
        dist.all_gather_object(parts, value)
        return parts

    def add(self, values: Sequence[float]) -> list[float]:
        """`sum`, at once."""
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor(list(values), dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total.tolist()


def failing() -> bool:
    """Whether an error is on its way out: the group ends, and the other workers cannot be asked for anything."""
    return sys.exc_info()[0] is not None


class DataParallel(Workers):
    """DDP: each worker holds the whole model. The base is frozen and equal everywhere: only gradients are exchanged."""

    def prepare(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, added: Sequence[nn.Parameter] = ()
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        return DistributedDataParallel(module, broadcast_buffers=False), optimizer

    def accumulating(self, module: Any, last: bool) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if last else module.no_sync()
