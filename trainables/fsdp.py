"""Fully sharded data parallel: each worker holds a part of the frozen base model, and the whole adapter.

PyTorch's `fully_shard` partitions the base; a block's weights are put together before its passes and parted after them.
The adapter is small, and its gradients are exchanged as under DDP, so that clipping, finite checks, optimizer state and
whatever a variant does to its gradients are those of one worker.

Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, arXiv 2304.11277.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._composable_state import _module_state_mapping
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from trainables.compiling import blocks
from trainables.lockstep import in_step
from trainables.workers import Workers, failing


class FullySharded(Workers):
    """The base model is loaded into each host's memory; a device holds its part, and one block whole at a time.

    Args:
        device: of the workers, such as `cuda`.
    """

    loads_on = "cpu"

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._sharded: _Sharded | None = None
        self._last = True

    def device(self, module: nn.Module) -> torch.device:
        return self._device

    def prepare(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, added: Sequence[nn.Parameter] = ()
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        self._sharded = _Sharded(module, self._device, self.world, added)
        for parameter in self._sharded.trained:
            dist.broadcast(parameter.data, src=0)
        return module, optimizer

    def release(self) -> None:
        sharded, self._sharded = self._sharded, None
        if sharded is not None and not failing():
            sharded.release()

    @contextlib.contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
        for part in parts:
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.reshard()

    @contextlib.contextmanager
    def serving(self, module: nn.Module) -> Iterator[None]:
        if self._sharded is not None:
            with in_step(self, module, self._device):
                yield
            return
        from trainables.variants.core.snapshot import Snapshot

        snapshot, sharded = Snapshot(module), _Sharded(module, self._device, self.world)
        try:
            with in_step(self, module, self._device):
                yield
        finally:
            if not failing():
                sharded.release()
                snapshot.restore()

    def accumulating(self, module: nn.Module, last: bool) -> contextlib.AbstractContextManager[object]:
        self._last = last
        return contextlib.nullcontext()

    def backward(self, module: nn.Module, loss: Tensor) -> None:
        loss.backward()
        if self._last and self._sharded is not None:
            self._exchange(self._sharded.trained)

    def _exchange(self, trained: list[nn.Parameter]) -> None:
        """The mean of the gradients over the workers, in one message."""
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads: list[Tensor] = [parameter.grad for parameter in trained if parameter.grad is not None]
        flat = torch.cat([grad.flatten().float() for grad in grads]) / self.world
        dist.all_reduce(flat)
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))


class _Sharded:
    """A module whose frozen parameters are partitioned, block by block, except those of an adapter (`added`).

    The parameters that it had are empty meanwhile: whoever holds them, such as a `Snapshot`, keeps no weight alive.
    """

    def __init__(self, module: nn.Module, device: torch.device, world: int, added: Sequence[nn.Parameter] = ()) -> None:
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        # Optimizers look at an adapter's frozen factors too.
        whole = {*self.trained, *added}
        self._frozen = {name: p for name, p in module.named_parameters() if p not in whole}
        self._module, self._home = module, {name: p.device for name, p in self._frozen.items()}
        mesh = init_device_mesh(device.type, (world,))
        for parameter in whole:
            parameter.data = parameter.data.to(device)
        options: dict[str, Any] = {"mesh": mesh, "ignored_params": whole}
        for block in blocks(module):
            fully_shard(block, **options)
        fully_shard(module, **options)
        for parameter in self._frozen.values():
            parameter.data = parameter.data.new_empty(0)
        self._make_buffers()

    def _make_buffers(self) -> None:
        """Buffers made in inference mode could not be written to in training."""
        for part in self._module.modules():
            if isinstance(part, FSDPModule):
                part.unshard()
                part.reshard()

    def release(self) -> None:
        """The parameters that it had get their values back, on the device where they were; all workers join in."""
        for part in self._module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()
            # Else the module could not be partitioned a second time.
            _module_state_mapping.pop(part, None)
        now = dict(self._module.named_parameters())
        for name, parameter in self._frozen.items():
            value = now[name].detach()
            parameter.data = (value.full_tensor() if isinstance(value, DTensor) else value).to(self._home[name])
