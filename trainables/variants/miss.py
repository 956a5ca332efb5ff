"""MiSS: one small matrix, shared by the shards of the input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.export import ADAPTER
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.peft_variant import PeftVariant
from trainables.variants.core.plain import PlainLora

if TYPE_CHECKING:
    from peft import PeftConfig


class Miss(PeftVariant):
    """W = W0 + D^T E: D `(r, m)`, trained from zero, times E `(r, n)`, which adds up input entries j, j + r, j + 2r, ..

    Kang and Yin, MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure, arXiv
    2409.15371; PEFT's default ("balance") form. There is no scale: alpha is not read. E is a row of identity
    matrices, so that W is plain LoRA of rank r with A' = E and B' = D^T, and is exported so.
    """

    name = "miss"
    summary = "one trained matrix on the sums of the input's shards"
    paper = "arXiv 2409.15371"
    parameters = "r m"
    shares_pass = "layer"
    scale_rule = "1"
    trains_factors = False

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        for matrix in matrices:
            if matrix.transposed:
                raise ValueError(
                    f"variant miss: {matrix.name} is stored transposed (Conv1D), which PEFT's MiSS cannot adapt: "
                    "use another variant or base model"
                )

    def peft_config(self, targets: list[str]) -> PeftConfig:
        from peft import MissConfig

        return MissConfig(r=self.config.rank, miss_dropout=self.config.dropout, target_modules=targets)

    def to_lora(self) -> PlainLora:
        factors = {}
        for matrix in self.matrices:
            d = self.layer(matrix.name).miss_block[ADAPTER].detach().cpu().float()  # (r, m)
            shards = torch.eye(len(d)).repeat(1, -(-matrix.columns // len(d)))
            factors[matrix.name] = shards[:, : matrix.columns].clone(), d.T.clone()
        return PlainLora(factors, dict.fromkeys(factors, 1.0))

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        # Plain LoRA rather than PEFT's own form: more tools serve it.
        return Variant.save_adapter(self, folder, base_model)

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rank * rows
