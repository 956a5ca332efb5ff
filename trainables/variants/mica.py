"""MiCA: train one factor against the minor singular directions."""

from __future__ import annotations

import torch
from torch import nn

from trainables.variants.core.decompositions import bottom_svd
from trainables.variants.core.one_factor import OneFactor


class Mica(OneFactor):
    """B = U_[-r:], frozen, from W0 = U S V^T; A starts at zero and is trained: W = W0 + s B A.

    Minor Component Adaptation, arXiv 2604.01694, as PEFT has it. PEFT rounds B to the base's type; here it is
    fp32.
    """

    name = "mica"
    summary = "LoRA that trains A only, with B the bottom left singular directions"
    paper = "arXiv 2604.01694"
    parameters = "r n"
    shares_pass = "factors"
    frozen = "B"

    def start(self, weight: torch.Tensor, a: nn.Parameter, b: nn.Parameter) -> None:
        u, _, _ = bottom_svd(weight, self.config.rank)  # (m, r)
        a.zero_()
        b.copy_(u)

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rank * columns
