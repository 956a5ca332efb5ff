"""MELoRA: several small LoRAs on the block diagonal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.errors import OptionError
from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.layers import AdaptedLinear, kaiming, place
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_whole
from trainables.variants.core.plain import PlainLora


class MeLoraLinear(AdaptedLinear):
    """W0 x + s diag(B_1 A_1, .., B_l A_l) x, the l blocks in one batched product each way."""

    def __init__(self, matrix: Matrix, minis: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__(matrix, dropout)
        device = matrix.device
        width = matrix.columns // minis
        self.a = nn.Parameter(kaiming(minis, rank, width, fan=width, device=device))  # (l, r, n / l)
        self.b = nn.Parameter(torch.zeros(minis, matrix.rows // minis, rank, device=device))  # (l, m / l, r)
        self.minis, self.scale = minis, scale

    def update(self, x: Tensor) -> Tensor:
        blocks = x.float().reshape(-1, self.minis, self.columns // self.minis).transpose(0, 1)  # (l, t, n / l)
        inner = torch.bmm(blocks, self.a.transpose(1, 2)) * self.scale  # (l, t, r)
        outer = torch.bmm(inner, self.b.transpose(1, 2))  # (l, t, m / l)
        return outer.transpose(0, 1).reshape(*x.shape[:-1], self.rows)


class MeLora(Variant):
    """W = W0 + s diag(B_1 A_1, .., B_l A_l): block i maps inputs i of n / l to outputs i of m / l.

    A_i is `(r, n / l)`, Kaiming-uniform, and B_i `(m / l, r)`, zero; s = alpha / r. Ren et al., MELoRA:
    Mini-Ensemble Low-Rank Adapters for Parameter-Efficient Fine-Tuning, arXiv 2402.17263, equation 2: as many
    parameters as LoRA of rank r, an update of rank up to l r. `minis` is l; it divides m and n.
    """

    name = "melora"
    summary = "small LoRAs on the block diagonal: rank l r at the size of rank r"
    paper = "arXiv 2402.17263"
    parameters = "r (m + n)"
    float32_only = True
    shares_pass = "layer"
    rank_limited = False
    options = {"minis": 4}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        minis = check_whole(cls, config, "minis")
        for matrix in matrices:
            if matrix.rows % minis or matrix.columns % minis:
                raise OptionError(
                    f"variant {cls.name}: option minis is {minis}, which does not divide {matrix.name} "
                    f"({matrix.rows} x {matrix.columns}): use a common divisor of both sides",
                    field="extra.minis",
                    value=minis,
                )

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        config = self.config
        self.layers: dict[str, MeLoraLinear] = {}
        for matrix in self.matrices:
            layer = MeLoraLinear(matrix, self.option("minis"), config.rank, config.alpha / config.rank, config.dropout)
            place(model, matrix, layer)
            self.layers[matrix.name] = layer
        return model

    def to_lora(self) -> PlainLora | None:
        """One LoRA of rank l r: the A_i in a block diagonal `(l r, n)`, the B_i in one `(m, l r)`."""
        factors = {}
        for name, layer in self.layers.items():
            a, b = (torch.block_diag(*factor.detach().cpu()) for factor in (layer.a, layer.b))
            factors[name] = (a, b)
        return PlainLora(factors, {name: layer.scale for name, layer in self.layers.items()})

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rank * (rows + columns)
