"""Forward passes of a partitioned model by workers that need different numbers of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import nn


class Adding(Protocol):
    """Workers that can add numbers up; see `workers.Workers`."""

    before: Callable[[], None] | None

    def add(self, values: Sequence[float]) -> list[float]: ...


@contextlib.contextmanager
def in_step(workers: Adding, module: nn.Module, device: torch.device) -> Iterator[None]:
    """Within, each worker calls the module as often as its rows need.

    A pass puts partitioned weights together, for which all workers are needed. So each says before a pass that it makes
    one; a worker that has left, or has something else to exchange, makes passes over one token until all have come.
    """
    idle = False

    def told(*_: object) -> None:
        if not idle:
            workers.add([1.0])

    def others() -> None:
        nonlocal idle
        idle = True
        with torch.no_grad():
            while workers.add([0.0])[0] > 0:
                module(input_ids=token)
        idle = False

    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    hook = module.register_forward_pre_hook(told, prepend=True)
    workers.before = others
    try:
        yield
        others()
    finally:
        workers.before = None
        hook.remove()
