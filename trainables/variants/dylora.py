"""DyLoRA: one adapter that works at every rank up to r."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.layers import AdaptedLinear, kaiming, place
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_choice, check_whole
from trainables.variants.core.plain import PlainLora


class DyLoraLinear(AdaptedLinear):
    """W0 x + (alpha / b) B[:, :b] A[:b] x; b = `active` in training, r in evaluation."""

    def __init__(self, matrix: Matrix, rank: int, alpha: float, dropout: float) -> None:
        super().__init__(matrix, dropout)
        device = matrix.device
        self.a = nn.Parameter(kaiming(rank, matrix.columns, fan=matrix.columns, device=device))  # (r, n)
        self.b = nn.Parameter(torch.zeros(matrix.rows, rank, device=device))  # (m, r)
        self.active, self.rank, self.alpha = rank, rank, alpha

    def update(self, x: Tensor) -> Tensor:
        b = self.active if self.training else self.rank
        inner = F.linear(x.float(), self.a[:b]) * (self.alpha / b)  # (..., b)
        return F.linear(inner, self.b[:, :b])


class DyLora(Variant):
    """Each step draws b from {r_min, .., r} and trains W0 + (alpha / b) B[:, :b] A[:b]; evaluated at b = r.

    Valipour et al., DyLoRA: Parameter-Efficient Tuning of Pre-trained Models using Dynamic Search-Free
    Low-Rank Adaptation, arXiv 2210.07558, algorithm 1, b uniform. The first directions are in use most often,
    so they learn what matters most, and the adapter can be cut to any rank b afterwards (`to_lora(b)`).

    A step leaves alone what it did not use: rows b+1.. of A and columns b+1.. of B, and with `frozen` (the
    paper's cheaper mode) all but row and column b. Their values do not move; AdamW's moments see a zero
    gradient for them. b depends on the seed and the step only, so a resumed run draws the same.
    """

    name = "dylora"
    summary = "LoRA trained at a random rank b <= r each step, cut to any rank afterwards"
    paper = "arXiv 2210.07558"
    parameters = "r (m + n)"
    float32_only = True
    shares_pass = "layer"
    rank_limited = False
    runs_on = frozenset({"hosted", "ddp", "fsdp"})
    not_elsewhere = "it puts back what a step moved and did not use, of which DeepSpeed keeps a copy of its own"
    options = {"frozen": False, "r_min": 1}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_choice(cls, config, "frozen", (False, True))
        check_whole(cls, config, "r_min", most=config.rank)

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        config = self.config
        self.layers: dict[str, DyLoraLinear] = {}
        for matrix in self.matrices:
            layer = DyLoraLinear(matrix, config.rank, config.alpha, config.dropout)
            place(model, matrix, layer)
            self.layers[matrix.name] = layer
        self.unused: list[tuple[Tensor, Tensor]] = []
        return model

    def draw(self, step: int) -> int:
        """b of a step, the same in every process."""
        return draw(self.config.seed, step, self.option("r_min"), self.config.rank)

    def before_step(self, step: int) -> None:
        b = self.draw(step)
        for layer in self.layers.values():
            layer.active = b

    def after_backward(self, step: int) -> None:
        b = next(iter(self.layers.values())).active
        frozen = self.option("frozen")
        self.unused = []
        for layer in self.layers.values():
            for factor in (layer.a, layer.b.T):
                self._keep(factor[b:])
                if frozen:
                    self._keep(factor[: b - 1])
            if frozen:
                _zero_below(layer, b)

    def _keep(self, part: Tensor) -> None:
        if part.numel():
            part = part.detach()
            self.unused.append((part, part.clone()))

    def after_step(self, step: int) -> None:
        if self.unused:
            parts, values = zip(*self.unused, strict=True)
            torch._foreach_copy_(parts, values)
        self.unused = []

    def to_lora(self, b: int | None = None) -> PlainLora | None:
        """Plain LoRA of rank b, scale alpha / b; b is r unless given.

        Raises:
            ValueError: b is not from 1 to r.
        """
        b = exported_rank(self, b)
        factors = {}
        for name, layer in self.layers.items():
            factors[name] = (layer.a[:b].detach().cpu().clone(), layer.b[:, :b].detach().cpu().clone())
        return PlainLora(factors, dict.fromkeys(self.layers, self.config.alpha / b))

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rank * (rows + columns)


def draw(seed: int, step: int, least: int, most: int) -> int:
    """A rank from `least` to `most`, uniformly; the same for the same seed and step."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return int(torch.randint(least, most + 1, (), generator=generator))


def exported_rank(variant: Variant, b: int | None) -> int:
    """The rank to export: b, or r where None is given.

    Raises:
        ValueError: b is not from 1 to r.
    """
    most = variant.config.rank
    b = most if b is None else b
    if not 1 <= b <= most:
        raise ValueError(f"variant {variant.name}: rank {b} to export: use one from 1 to {most}")
    return b


def _zero_below(layer: DyLoraLinear, b: int) -> None:
    """Gradients of directions 1 to b - 1, which neither move nor count for the clipping norm."""
    if layer.a.grad is not None:
        layer.a.grad[: b - 1].zero_()
    if layer.b.grad is not None:
        layer.b.grad[:, : b - 1].zero_()
