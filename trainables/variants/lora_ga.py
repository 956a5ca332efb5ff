"""LoRA-GA: start from the gradient of full fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.data_start import DataStart, weight_gradients
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_number


class LoraGa(DataStart):
    """A0 = c V_[1:r]^T and B0 = c U_[r+1:2r] from G = dL/dW0 = U S V^T on the first batch; c = m^(1/4) / gamma^(1/2).

    Wang et al., LoRA-GA: Low-Rank Adaptation with Gradient Approximation, arXiv 2407.05000, theorems 3.1 (the
    directions) and 3.2 (c, "stable output") and algorithm 1; the base keeps W0 - s B0 A0. Where a matrix has
    fewer than 2r singular vectors, B0 takes the last r of those there are.

    PEFT's `lora_ga` is plain LoRA unless `preprocess_loraga` was called; it scales B0 by the singular values,
    which vanish with the gradient, and A0 not at all. So the factors are computed here, from the mean
    gradient over the completion tokens of the whole first global batch.
    """

    name = "lora_ga"
    summary = "LoRA that starts along the first batch's full gradient"
    paper = "arXiv 2407.05000"
    parameters = "r (m + n)"
    shares_pass = "factors"
    options = {"gamma": 16}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_number(cls, config, "gamma", lambda value: value > 0, "use a number above 0")

    def observe(self, model: nn.Module, batches: Batches) -> dict[str, Tensor]:
        return weight_gradients(model, self.matrices, batches)

    def start(self, weight: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return gradient_factors(self.seen, self.config.rank, self.option("gamma"))


def gradient_factors(gradient: Tensor, rank: int, gamma: float) -> tuple[Tensor, Tensor]:
    """A0 `(r, n)` and B0 `(m, r)` from G `(m, n)`; randomised SVD, as PEFT's, with 2r more columns than needed."""
    limit = min(gradient.shape)
    u, _, v = torch.svd_lowrank(gradient, q=min(4 * rank, limit), niter=4)  # (m, q), (q,), (n, q)
    last = min(2 * rank, limit)
    c = gradient.shape[0] ** 0.25 / gamma**0.5
    return c * v[:, :rank].T, c * u[:, last - rank : last]
