"""OLoRA: start from an orthonormal basis."""

from __future__ import annotations

import torch

from trainables.variants.peft_variant import RewritingVariant


class Olora(RewritingVariant):
    """B0 = Q[:, :r] and A0 = R[:r, :] from W0 = Q R; the base keeps W0 - s B0 A0.

    Buyukakyuz, OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models, arXiv 2406.01775,
    algorithm 1. The first r columns of Q depend on the first r columns of W0 only, and
    R[:r, :] = Q[:, :r]^T W0, so the whole matrix is never decomposed: the same factors for less work.
    """

    name = "olora"
    summary = "LoRA that starts from an orthonormal basis of the weight's first r columns"
    paper = "arXiv 2406.01775"
    parameters = "r (m + n)"

    def start(self, weight: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        q, _ = torch.linalg.qr(weight[:, : self.config.rank])  # (m, r)
        return q.T @ weight, q
