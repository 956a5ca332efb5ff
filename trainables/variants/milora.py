"""MiLoRA: start from the minor singular directions."""

from __future__ import annotations

import torch

from trainables.variants.core.decompositions import bottom_svd
from trainables.variants.core.peft_variant import RewritingVariant


class Milora(RewritingVariant):
    """B0 = U_b (S_b / s)^(1/2) and A0 = (S_b / s)^(1/2) V_b^T from the bottom r of W0 = U S V^T.

    U_b `(m, r)`, S_b `(r,)` and V_b `(n, r)` belong to the r smallest of the min(m, n) singular values. Wang
    et al., MiLoRA: Harnessing Minor Singular Components for Parameter-Efficient LLM Finetuning, arXiv
    2406.09044, section 3 (there s = 1, alpha = r). The principal part of W0, all but those r directions, is
    frozen, so what was learned in pretraining is disturbed least. The SVD is exact.
    """

    name = "milora"
    summary = "LoRA that starts from the bottom singular directions and freezes the rest"
    paper = "arXiv 2406.09044"
    parameters = "r (m + n)"
    shares_pass = "factors"

    def start(self, weight: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        u, s, v = bottom_svd(weight, self.config.rank)  # (m, r), (r,), (n, r)
        root = (s / scale).sqrt()
        return root[:, None] * v.T, u * root
