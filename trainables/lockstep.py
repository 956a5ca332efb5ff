"""Forward passes of a partitioned model by workers that need different numbers of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import nn


class Summing(Protocol):
    """Workers that can add numbers up; see `parallel.Parallel`."""

    def sum(self, values: Sequence[float]) -> list[float]: ...


@contextlib.contextmanager
def in_step(workers: Summing, module: nn.Module, device: torch.device) -> Iterator[None]:
    """Within, each worker calls the module as often as its rows need; nothing else is exchanged in there.

    A pass puts partitioned weights together, for which all workers are needed. So each says before a pass that it makes
    one, and a worker that has left goes on making passes over one token until none makes one for itself.
    """
    idle = False

    def told(*_: object) -> None:
        if not idle:
            workers.sum([1.0])

    hook = module.register_forward_pre_hook(told, prepend=True)
    try:
        yield
        idle = True
        token = torch.zeros(1, 1, dtype=torch.long, device=device)
        while workers.sum([0.0])[0] > 0:
            with torch.no_grad():
                module(input_ids=token)
    finally:
        hook.remove()
