"""GraLoRA: a grid of small LoRAs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainables.errors import OptionError
from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.export import ADAPTER, peft_number
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_whole
from trainables.variants.core.peft_variant import PeftVariant
from trainables.variants.core.plain import PlainLora

if TYPE_CHECKING:
    from peft import PeftConfig


class Gralora(PeftVariant):
    """Each of the k x k blocks of W gets a LoRA of its own of rank r / k: as many parameters as LoRA, rank up to k r.

    Block (j, i) of the update is s B_ji A_ji with A_ji `(r/k, n/k)`, B_ji `(m/k, r/k)`, s = alpha / r. Jung et
    al., GraLoRA: Granular Low-Rank Adaptation for Parameter-Efficient Fine-Tuning, arXiv 2505.20355, section 3
    (it advises k = 2 up to rank 32, k = 4 from rank 64). k divides r and the sides of every matrix.

    Exported as plain LoRA of rank k r: A' is block diagonal, the blocks of B' meet their partners in it.
    """

    name = "gralora"
    summary = "a k x k grid of LoRAs of rank r / k"
    paper = "arXiv 2505.20355"
    parameters = "r (m + n)"
    shares_pass = "layer"
    step_time = 1.1
    rank_limited = False
    options = {"k": 2}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_whole(cls, config, "k", least=1)
        k = config.extra.get("k", cls.options["k"])
        if config.rank % k:
            raise OptionError(
                f"variant gralora: k = {k} does not divide rank {config.rank}: use a k that does",
                field="extra.k",
                value=k,
            )
        for matrix in matrices:
            if matrix.rows % k or matrix.columns % k:
                raise OptionError(
                    f"variant gralora: k = {k} does not divide the sides of {matrix.name} "
                    f"({matrix.rows} x {matrix.columns}): use a k that does, or a placement without {matrix.kind}",
                    field="extra.k",
                    value=k,
                )

    def peft_config(self, targets: list[str]) -> PeftConfig:
        from peft import GraloraConfig

        config = self.config
        return GraloraConfig(
            r=config.rank,
            alpha=peft_number(config.alpha),
            gralora_dropout=config.dropout,
            gralora_k=self.option("k"),
            target_modules=targets,
            fan_in_fan_out=any(matrix.transposed for matrix in self.matrices),
        )

    def to_lora(self) -> PlainLora:
        factors = {}
        for matrix in self.matrices:
            layer = self.layer(matrix.name)
            pair = layer.gralora_A[ADAPTER].detach(), layer.gralora_B[ADAPTER].detach()
            factors[matrix.name] = grid_to_lora(*(part.cpu().float() for part in pair))
        return PlainLora(factors, {name: self.scale(name) for name in factors})

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        # Plain LoRA rather than PEFT's own form: more tools serve it.
        return Variant.save_adapter(self, folder, base_model)


def grid_to_lora(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A' `(k r, n)` and B' `(m, k r)` from PEFT's stacks A `(k, n/k, r)` and B `(k, r, m/k)`.

    A[i] holds the A_ji of column block i side by side over j, B[j] the B_ji of row block j one below the other
    over i. The inner index of B' A' counts (i, j, place within r/k).
    """
    k, _, rank = a.shape
    height, inner = b.shape[2], rank // k
    right = torch.block_diag(*(block.T for block in a))  # (k r, n)
    left = b.new_zeros(k, height, k, k, inner)  # row block, row, i, j, place
    for j in range(k):
        left[j, :, :, j] = b[j].T.reshape(height, k, inner)
    return right, left.reshape(k * height, k * rank)
