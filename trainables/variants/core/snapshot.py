"""Taking a model back to exactly what it was, so that one base model serves many trials."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_CONTAINERS = (dict, OrderedDict, list, set)


class Snapshot:
    """Everything about a model that an adapter may change, apart from weights nobody rewrites.

    Kept by reference: each module's class and attributes (children, parameters, buffers, hooks, flags, bound
    methods), each configuration object's attributes, each parameter's `requires_grad` and `grad`. That costs
    kilobytes, not a copy of the model. A weight that a variant means to change goes through `rewrite`, which
    keeps the original.
    """

    def __init__(self, model: nn.Module) -> None:
        self._owners: list[tuple[Any, type, dict[str, tuple[Any, Any]]]] = []
        seen: set[int] = set()
        for module in model.modules():
            self._record(module, seen)
        self.modules = frozenset(id(module) for module in model.modules())
        self._parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
        self._backups: dict[int, tuple[nn.Parameter, torch.Tensor]] = {}

    def _record(self, owner: object, seen: set[int]) -> None:
        if id(owner) in seen:
            return
        seen.add(id(owner))
        # A container is kept twice: the object itself, which others may hold (a hook's handle does), and its
        # content.
        attributes = {
            key: (value, type(value)(value) if type(value) in _CONTAINERS else None)
            for key, value in vars(owner).items()
        }
        self._owners.append((owner, type(owner), attributes))
        for value in vars(owner).values():
            if _is_configuration(value):
                self._record(value, seen)

    def rewrite(self, parameter: nn.Parameter, data: torch.Tensor) -> None:
        """Gives a parameter other values until `restore`. The original storage itself is never written to.

        On the CPU the original is kept as it is, not copied, so weights in read-only shared memory are safe;
        on another device it moves to the CPU, so that the device holds each matrix once.
        """
        if id(parameter) not in self._backups:
            self._backups[id(parameter)] = (parameter, parameter.data.cpu())
        parameter.data = data

    def original(self, parameter: nn.Parameter) -> torch.Tensor:
        """The values that the parameter had at the snapshot, on its device; not to be written to."""
        backup = self._backups.get(id(parameter))
        return parameter.data if backup is None else backup[1].to(parameter.device)

    def restore(self) -> None:
        """Puts everything back. What was added since then is no longer reachable from the model."""
        for parameter, backup in self._backups.values():
            parameter.data = backup.to(parameter.device)
        for owner, cls, attributes in self._owners:
            if type(owner) is not cls:
                owner.__class__ = cls
            # Through the dict: PyTorch's __setattr__ would re-register what it is given.
            vars(owner).clear()
            for key, (value, content) in attributes.items():
                if isinstance(value, list):
                    value[:] = content
                elif content is not None:
                    value.clear()
                    value.update(content)
                vars(owner)[key] = value
        for parameter, requires_grad, grad in self._parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _is_configuration(value: object) -> bool:
    """Model and generation configurations, told by their shape so that any library's will do."""
    return hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type)) and hasattr(value, "to_diff_dict")


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over all parameters and buffers: bits, names, types and shapes; tied ones count once.

    Two models with equal fingerprints compute the same function up to hooks and configuration. About 0.2 s
    for 135M bf16 weights on one CPU core. Weights on another device are copied to the CPU one by one.
    """
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def fingerprint_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over named tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)};".encode())
        digest.update(raw_bytes(tensors[name]))
    return digest.hexdigest()


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The values as bytes in row-major order, without a copy where they lie so on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs a block with PyTorch's generators seeded, and leaves them as they were found."""
    # A CUDA that nobody has started is left alone: forking its generators would start it.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield
