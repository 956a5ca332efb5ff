"""OLoRA: start from an orthonormal basis."""

from __future__ import annotations

import torch

from trainables.variants.core.decompositions import first_qr
from trainables.variants.core.peft_variant import RewritingVariant


class Olora(RewritingVariant):
    """B0 = Q[:, :r] and A0 = R[:r, :] from W0 = Q R; the base keeps W0 - s B0 A0.

    Buyukakyuz, OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models, arXiv 2406.01775,
    algorithm 1.
    """

    name = "olora"
    summary = "LoRA that starts from an orthonormal basis of the weight's first r columns"
    paper = "arXiv 2406.01775"
    parameters = "r (m + n)"
    shares_pass = "factors"

    def start(self, weight: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        q, r = first_qr(weight, self.config.rank)  # (m, r), (r, n)
        return r, q
