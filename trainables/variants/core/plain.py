"""An adapter as plain LoRA: what most variants can be exported as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PlainLora:
    """An adapter as plain LoRA against the original base weights: W = W0 + scale B A for each named matrix.

    Attributes:
        factors: module name -> (A of shape (r, n), B of shape (m, r)), fp32 on the CPU. Ranks may differ.
        scales: module name -> scale, with the same names.
    """

    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    scales: Mapping[str, float]

    def rank(self, name: str) -> int:
        """r of one matrix."""
        return self.factors[name][0].shape[0]

    def alpha(self, name: str) -> float:
        """The alpha that gives this matrix its scale under the rule scale = alpha / rank."""
        return self.scales[name] * self.rank(name)

    def delta(self, name: str) -> torch.Tensor:
        """scale B A, `(m, n)`, fp32."""
        a, b = self.factors[name]
        return self.scales[name] * (b.float() @ a.float())
