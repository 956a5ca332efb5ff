"""PiSSA: start from the principal singular directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.decompositions import top_svd
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_whole
from trainables.variants.core.peft_variant import RewritingVariant


class Pissa(RewritingVariant):
    """B0 = U_r (S_r / s)^(1/2) and A0 = (S_r / s)^(1/2) V_r^T from the top r of W0 = U S V^T.

    Meng et al., PiSSA: Principal Singular Values and Singular Vectors Adaptation, arXiv 2404.02948, section 3
    (there s = 1, alpha = r). The rest of W0 is frozen. The singular vectors come from a randomised SVD with
    `niter` subspace iterations: approximate ones only move the line between adapter and residual, whose sum
    is W0 all the same.
    """

    name = "pissa"
    summary = "LoRA that starts from the top singular directions and freezes the rest"
    paper = "arXiv 2404.02948"
    parameters = "r (m + n)"
    shares_pass = "factors"
    options = {"niter": 4}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_whole(cls, config, "niter", least=0)

    def start(self, weight: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        u, s, v = top_svd(weight, self.config.rank, self.option("niter"))  # (m, r), (r,), (n, r)
        root = (s / scale).sqrt()
        return root[:, None] * v.T, u * root
