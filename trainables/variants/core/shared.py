"""What a variant tells of its update, so that its trials can share a forward pass with trials of other adapters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LoraPart:
    """The update of one matrix as factors: s B A dropout(x), less s B0 A0 x where A0 and B0 were taken out of W0.

    Attributes:
        a, b: live A `(r, n)` and B `(m, r)`, fp32; a frozen one needs no gradient.
        scale: s.
        dropout: probability with which an entry of x is dropped in training.
        taken: A0 `(r0, n)` and B0 `(m, r0)`, fp32, of a variant that starts by taking them out of the base; the base
            itself stays as it is, for others compute with it at the same time.
    """

    a: Tensor
    b: Tensor
    scale: float
    dropout: float = 0.0
    taken: tuple[Tensor, Tensor] | None = None
