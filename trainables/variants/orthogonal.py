"""Orthogonal start: both factors random, their product zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainables.errors import OptionError
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.peft_variant import PeftVariant


class Orthogonal(PeftVariant):
    """LoRA that starts from random A0 and B0 whose rows and columns span orthogonal halves: B0 A0 = 0.

    With Q `(r, r)` orthogonal, Q1 its rows 1, 3, .. and Q2 its rows 2, 4, .., A0 = (X Q1)^T / 10 and
    B0 = Y Q2 / 10 for normal X `(n, r/2)` and Y `(m, r/2)`; r is even. PEFT's `orthogonal`, after
    https://datta0.github.io/posts/rethink-lora-init: both factors have a gradient from the first step. PEFT
    rounds them to the base's type, over bf16 their product is then no longer zero; here they are fp32.
    """

    name = "orthogonal"
    summary = "LoRA that starts from two random factors with product zero"
    paper = "https://datta0.github.io/posts/rethink-lora-init"
    parameters = "r (m + n)"
    shares_pass = "factors"
    rank_limited = False

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        if config.rank % 2:
            raise OptionError(
                f"variant orthogonal: rank {config.rank} is odd: use an even rank", field="rank", value=config.rank
            )

    def lora_settings(self) -> dict[str, object]:
        return {"init_lora_weights": False}

    def initialise(self) -> None:
        with torch.no_grad():
            for matrix in self.matrices:
                factors = orthogonal_factors(matrix.rows, matrix.columns, self.config.rank)
                for parameter, value in zip(self.factors(matrix.name), factors, strict=True):
                    parameter.copy_(value)


def orthogonal_factors(rows: int, columns: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A0 `(r, n)` and B0 `(m, r)`, drawn from the global generator in the order in which PEFT draws."""
    q, _ = torch.linalg.qr(torch.randn(rank, rank))
    x = torch.randn(columns, rank // 2)
    y = torch.randn(rank // 2, rows).T
    return (x @ q[0::2]).T / 10, (y @ q[1::2]) / 10
