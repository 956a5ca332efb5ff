"""Linear layers with an update beside them, for the variants that PEFT lacks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainables.variants.core.matrices import Matrix


class AdaptedLinear(nn.Module):
    """y = base(x) + update(dropout(x)), in place of a linear layer (or transformers' `Conv1D`).

    A subclass says what `update` is. Its parameters are fp32 whatever the base's type; the sum comes back in
    the base's type.

    Args:
        matrix: the matrix to adapt; its module becomes `base_layer`.
        dropout: probability on the update's input.
    """

    def __init__(self, matrix: Matrix, dropout: float = 0.0) -> None:
        super().__init__()
        self.base_layer = matrix.module
        self.rows, self.columns = matrix.rows, matrix.columns
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    @property
    def weight(self) -> Tensor:
        """The base's weight: model code asks layers for its type and device."""
        return self.base_layer.weight

    def update(self, x: Tensor) -> Tensor:
        """`(..., n)` in the base's type -> `(..., m)`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        result = self.base_layer(x)
        return result + self.update(self.dropout(x)).to(result.dtype)


class DeltaLinear(AdaptedLinear):
    """W0 x + D x with a constant D `(m, n)`, kept in the base's type.

    Beside a bf16 base a small D keeps its digits; summed into W0 they would be rounded away.
    """

    delta: Tensor

    def __init__(self, matrix: Matrix, delta: Tensor) -> None:
        super().__init__(matrix)
        self.register_buffer("delta", delta.to(matrix.device, matrix.dtype), persistent=False)

    def update(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.delta)


class TakenLinear(AdaptedLinear):
    """W0 x - s B0 A0 x: a quantised matrix without the factors that a start takes out of it.

    What quantising leaves of W0 is not rounded a second time, and its bits are not touched.
    """

    a: Tensor
    b: Tensor

    def __init__(self, matrix: Matrix, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__(matrix)
        self.register_buffer("a", a.to(matrix.device), persistent=False)  # (r, n)
        self.register_buffer("b", (b * -scale).to(matrix.device), persistent=False)  # (m, r)

    def update(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.linear(x.to(self.a.dtype), self.a), self.b)


def place(model: nn.Module, matrix: Matrix, layer: nn.Module) -> None:
    """Puts `layer` where the module of `matrix` is."""
    parent, _, child = matrix.name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def kaiming(*shape: int, fan: int, device: torch.device) -> Tensor:
    """U(-1/sqrt(fan), 1/sqrt(fan)) in fp32: how LoRA draws A, whose fan is its number of inputs n."""
    return torch.empty(shape, device=device).uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan))
