"""Init[AB]: both factors start at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.layers import kaiming
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_choice
from trainables.variants.core.peft_variant import PeftVariant, RewritingVariant
from trainables.variants.core.plain import PlainLora


class InitAB(RewritingVariant):
    """A0 ~ U(-1/sqrt(n), 1/sqrt(n)) and B0 ~ U(-1/sqrt(m), 1/sqrt(m)); the base keeps W0 - s B0 A0.

    Li et al., Beyond Zero Initialization: Investigating the Impact of Non-Zero Initialization on LoRA
    Fine-Tuning Dynamics, arXiv 2505.23194: with entries of both factors of the order width^(-1/2), gradients
    of both are there from the first step, which forgives learning rates that are too small.

    With `plus`, Init[AB+], W0 is left alone: training starts at W0 + s B0 A0, off the pretrained function by
    noise of relative size s sqrt(r / m) / 3 for weights of variance 1 / n, and the noise is part of the export.
    """

    name = "init_ab"
    summary = "LoRA with both factors random; the base gives way (or not: plus)"
    paper = "arXiv 2505.23194"
    parameters = "r (m + n)"
    shares_pass = "factors"
    rank_limited = False
    options = {"plus": False}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_choice(cls, config, "plus", (False, True))

    def start(self, weight: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        (rows, columns), rank = weight.shape, self.config.rank
        a = kaiming(rank, columns, fan=columns, device=weight.device)
        return a, kaiming(rows, rank, fan=rows, device=weight.device)

    def take_out(self, matrix: Matrix, a0: torch.Tensor, b0: torch.Tensor) -> None:
        if self.option("plus"):  # as if the factors had started at zero: nothing is taken out of W0
            a0, b0 = torch.zeros_like(a0), torch.zeros_like(b0)
        super().take_out(matrix, a0, b0)

    def to_lora(self) -> PlainLora | None:
        return PeftVariant.to_lora(self) if self.option("plus") else super().to_lora()
