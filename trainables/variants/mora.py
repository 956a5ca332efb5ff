"""MoRA: one square matrix between operators without parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.layers import AdaptedLinear, place
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_choice

SHARING_FROM = 128  # the paper shares at ranks 128 and 256 and rotates at rank 8


class MoraLinear(AdaptedLinear):
    """W0 x + s decompress(M compress(x)) with M `(q, q)` trained, from zero.

    The matrix products are in the base's type: M is no thin factor, and fp32 products of its size beside a
    bf16 base would take longer than the base itself. M and its gradient stay fp32.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, matrix: Matrix, size: int, rotate: bool, scale: float, dropout: float) -> None:
        super().__init__(matrix, dropout)
        device = matrix.device
        self.square = nn.Parameter(torch.zeros(size, size, device=device))
        self.size, self.rotate, self.scale = size, rotate, scale
        # Groups of inputs beyond the last output have nothing to go to.
        self.groups = math.ceil(self.columns / size)
        if rotate:
            self.groups = min(self.groups, math.ceil(self.rows / size))
            cos, sin = rotations(self.groups, size)
            self.register_buffer("cos", cos.to(device)[:, None], persistent=False)  # (g, 1, q)
            self.register_buffer("sin", sin.to(device)[:, None], persistent=False)

    def grouped(self, x: Tensor) -> Tensor:
        """`(..., n)` -> `(t, g, q)`: groups of q neighbouring inputs, the last one filled up with zeros."""
        wanted = self.groups * self.size
        flat = x.reshape(-1, self.columns)[:, :wanted]
        return F.pad(flat, (0, wanted - flat.shape[1])).unflatten(1, (self.groups, self.size))

    def update(self, x: Tensor) -> Tensor:
        square, groups = self.scale * self.square, self.grouped(x)
        if self.rotate:
            # M (R_g x_g) = (M R_g) x_g: turning the matrix costs less than turning every token.
            half = self.size // 2
            turned = torch.cat([square[:, half:], -square[:, :half]], dim=1)
            blocks = square * self.cos + turned * self.sin  # (g, q, q)
            y = torch.bmm(groups.transpose(0, 1), blocks.to(x.dtype).transpose(1, 2))  # (g, t, q)
            y = y.transpose(0, 1).flatten(1)  # (t, g q)
        else:
            y = F.linear(groups.sum(dim=1), square.to(x.dtype))  # (t, q)
        if y.shape[1] < self.rows:
            y = y.repeat(1, math.ceil(self.rows / y.shape[1]))
        return y[:, : self.rows].reshape(*x.shape[:-1], self.rows)


class Mora(Variant):
    """W = W0 + s D M C with one square M `(q, q)`, q = floor(sqrt((m + n) r)): full rank at the size of LoRA.

    Jiang et al., MoRA: High-Rank Updating for Parameter-Efficient Fine-Tuning, arXiv 2405.12130. `kind`:

    - `sharing` (equation 6): C adds the inputs j that have j mod q in common, D repeats the q outputs over the
      m: dW_ij = s M[i mod q, j mod q].
    - `rotation` (equation 9): inputs are taken in groups of q, group g turned by angles g 10000^(-2k / q) in
      the planes (k, k + q / 2), as rotary position embeddings turn, so that M can tell the groups apart; the
      groups' outputs stand side by side, cut to m or repeated up to m. q is even. Where n > m, the inputs of
      groups beyond the m-th output are not used, as in the authors' implementation.
    - `auto`: sharing for r of 128 and more, rotation below.

    The paper has s = 1; here s = alpha / r, which is that at alpha = r. The update is no LoRA: it is saved as
    merged weights.
    """

    name = "mora"
    summary = "one square matrix between sums or rotations: a high-rank update"
    paper = "arXiv 2405.12130"
    parameters = "q^2, q = sqrt(r (m + n)) rounded down to even"
    shares_pass = "layer"
    step_time = 1.15
    trains_factors = False
    exports_lora = False
    saves = "merged"
    options = {"kind": "auto"}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_choice(cls, config, "kind", ("auto", "sharing", "rotation"))

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        config, kind = self.config, self.option("kind")
        rotate = kind == "rotation" or (kind == "auto" and config.rank < SHARING_FROM)
        self.layers: dict[str, tuple[Matrix, MoraLinear]] = {}
        for matrix in self.matrices:
            size = square_size(matrix.rows, matrix.columns, config.rank)
            layer = MoraLinear(matrix, size, rotate, config.alpha / config.rank, config.dropout)
            place(model, matrix, layer)
            self.layers[matrix.name] = (matrix, layer)
        return model

    def tuned_weights(self) -> dict[str, Tensor]:
        """W0 + dW, whose columns are the update of unit vectors."""
        weights = {}
        with torch.no_grad():
            for name, (matrix, layer) in self.layers.items():
                delta = layer.update(torch.eye(matrix.columns, device=matrix.device)).T
                weights[name] = (matrix.oriented(matrix.weight).float() + delta).cpu()
        return weights

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return square_size(rows, columns, rank) ** 2


def square_size(rows: int, columns: int, rank: int) -> int:
    """q: the largest even number whose square has at most as many entries as LoRA of that rank.

    Even for both kinds, so that a matrix trains as many parameters with either.
    """
    return max(2, math.isqrt((rows + columns) * rank) // 2 * 2)


def rotations(groups: int, size: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(g, q)` of the angles g 10000^(-2k / q); plane k is coordinates k and k + q / 2."""
    rates = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.outer(torch.arange(groups, dtype=torch.float64), rates).repeat(1, 2)  # (g, q)
    return angles.cos().float(), angles.sin().float()
