"""Dropout whose draws are a trial's own, whoever computes beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def kept(shape: torch.Size, dropout: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Which entries stay, as truth values; on a CPU the draws that PyTorch's dropout makes from the same generator."""
    return torch.empty(shape, dtype=torch.bool, device=device).bernoulli_(1 - dropout, generator=generator)


class OwnDropout(nn.Dropout):
    """`nn.Dropout` that draws from a given generator, not from the global one."""

    def __init__(self, p: float, generator: torch.Generator) -> None:
        super().__init__(p)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return x * (kept(x.shape, self.p, self.generator, x.device) / (1 - self.p))


def own_dropouts(layer: nn.Module, generator: torch.Generator) -> None:
    """Put `OwnDropout` in the place of every dropout in a layer."""
    for part in list(layer.modules()):
        for name, child in part.named_children():
            if type(child) is nn.Dropout:
                part._modules[name] = OwnDropout(child.p, generator)
