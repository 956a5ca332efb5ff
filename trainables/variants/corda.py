"""CorDA: start from singular directions oriented by the layer's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.data_start import DataStart, attended_tokens, observe_inputs
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_choice

DAMPING = 0.01  # of the mean diagonal of C: PEFT's and the authors' first value


class Corda(DataStart):
    """B0 = U_r (S_r / s)^(1/2) and A0 = (S_r / s)^(1/2) V_r^T C^-1 from W0 C = U S V^T, C the inputs' covariance.

    Yang et al., CorDA: Context-Oriented Decomposition Adaptation of Large Language Models, arXiv 2406.05223,
    sections 3.2 and 3.3; the base keeps W0 - s B0 A0. `mode` "ipm" (instruction-previewed, the paper's for
    fine-tuning) takes the top r directions for the task that the first batch shows; "kpm"
    (knowledge-preserved) the bottom r, and costs a whole SVD of each matrix.

    C `(n, n)` is the mean over rows of X^T X, X `(length, n)` a row's inputs over its largest entry, plus
    damping; each row is its own sample, as PEFT's calibration with batch 1, and padding is left out. As
    U_r^T W0 C = S_r V_r^T, the factor S_r V_r^T C^-1 is U_r^T W0: C is never inverted.
    """

    name = "corda"
    summary = "LoRA that starts from the directions that the first batch's inputs use"
    paper = "arXiv 2406.05223"
    parameters = "r (m + n)"
    shares_pass = "factors"
    options = {"mode": "ipm"}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_choice(cls, config, "mode", ("ipm", "kpm"))

    def observe(self, model: nn.Module, batches: Batches) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        rows = sum(len(batch["input_ids"]) for batch in batches)

        def add(name: str, inputs: Tensor, batch: Mapping[str, Tensor]) -> None:
            total = sums.setdefault(name, inputs.new_zeros(inputs.shape[-1], inputs.shape[-1]))
            for row, attended in zip(inputs, attended_tokens(batch), strict=True):
                x = row[attended]
                x = x / x.max().abs()
                total.addmm_(x.T, x, alpha=1 / rows)

        leaders = observe_inputs(model, self.matrices, batches, add)
        for name, covariance in sums.items():
            if not torch.isfinite(covariance).all():
                raise ValueError(f"variant corda: the inputs of {name} are not finite on the first batch: check it")
        return {name: sums[leader] for name, leader in leaders.items()}

    def start(self, weight: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return oriented_factors(weight.float(), self.seen, self.config.rank, scale, self.option("mode"))


def oriented_factors(weight: Tensor, covariance: Tensor, rank: int, scale: float, mode: str) -> tuple[Tensor, Tensor]:
    """A0 `(r, n)` and B0 `(m, r)` from W0 `(m, n)` and the undamped C `(n, n)`, all fp32."""
    diagonal = covariance.diagonal()
    damped = covariance + torch.diag(torch.full_like(diagonal, float(diagonal.mean()) * DAMPING))
    product = weight @ damped
    if mode == "ipm":
        u, s, _ = torch.svd_lowrank(product, q=min(rank + 8, *product.shape), niter=4)
        u, s = u[:, :rank], s[:rank]
    else:
        u, s, _ = torch.linalg.svd(product, full_matrices=False)
        u, s = u[:, -rank:], s[-rank:]
    s = s.clamp_min(torch.finfo(s.dtype).tiny)
    return (u.T @ weight) / (s * scale).sqrt()[:, None], u * (s / scale).sqrt()
