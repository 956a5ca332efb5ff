"""LoftQ: start from what quantising the base has cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainables.quantization import QuantizedLinear
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.decompositions import decompose
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_whole
from trainables.variants.core.peft_variant import RewritingVariant, name_factors

NITER = 8  # subspace iterations: what quantising leaves has a flat spectrum


class LoftQ(RewritingVariant):
    """Q and s B0 A0 with Q + s B0 A0 near W0, by turns: Q_t = q(W0 - s B A), then s B A the top r of W0 - Q_t.

    Li et al., LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models, arXiv 2310.08659, algorithm 1
    (there s = 1). `iterations` is its T; with 1 the base stays as it is. W0 is read from the model's folder. Q is kept
    as the base is, in nf4 or int8, and takes its place as long as the adapter is on it. The SVD is randomised.

    Exported as W0 + s (B A - B0 A0) against the full-precision base, which is what was trained but for the part of
    W0 - Q that B0 A0 does not reach.
    """

    name = "loftq"
    summary = "LoRA that starts by making good what quantising the base has cost"
    paper = "arXiv 2310.08659"
    parameters = "r (m + n)"
    quantized = "only"
    trains_factors = False  # curvature is measured on a base that is not quantised
    options = {"iterations": 5}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_whole(cls, config, "iterations")

    def initialise(self) -> None:
        self.before: dict[str, tuple[Tensor, Tensor]] = {}
        super().initialise()

    def start(self, weight: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        raise NotImplementedError  # it has to know the matrix

    def start_matrix(self, matrix: Matrix, weight: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        rank, turns, layer = self.config.rank, self.option("iterations"), _quantized(matrix)
        parts = decompose(
            _original(layer, matrix.device),
            f"loftq-{layer.kind}-{rank}-{turns}-{NITER}",
            lambda w: alternate(w, layer, rank, turns),
        )
        self.before[matrix.name] = parts["a_before"], parts["b_before"]
        return parts["a"] / scale**0.5, parts["b"] / scale**0.5

    def take_out(self, matrix: Matrix, a0: Tensor, b0: Tensor) -> None:
        """Remembers the factors and puts Q in the place of the quantised W0."""
        self.initial[matrix.name] = (a0, b0)
        if self.option("iterations") > 1:
            layer, (a, b) = _quantized(matrix), self.before[matrix.name]
            rest = _original(layer, matrix.device).float() - b @ a
            self.layer(matrix.name).base_layer = layer.requantized(rest)

    def start_state(self) -> dict[str, Tensor]:
        return super().start_state() | name_factors("before", self.before)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.check_state(state, {name: tensor.shape for name, tensor in self.state().items()})
        for name, tensor in name_factors("before", self.before).items():
            tensor.copy_(state[name])
        super().load_state(state)


def alternate(weight: Tensor, layer: QuantizedLinear, rank: int, iterations: int) -> dict[str, Tensor]:
    """Factors `a` `(r, n)` and `b` `(m, r)` after so many turns, and those that the last Q was made with (`_before`).

    Args:
        weight: W0 `(m, n)`, fp32.
        layer: of the kind that Q is to be.
    """
    a, b = weight.new_zeros(rank, weight.shape[1]), weight.new_zeros(weight.shape[0], rank)
    for _ in range(iterations):
        a_before, b_before = a, b
        quantized = layer.requantized(weight - b @ a).dense(torch.float32)
        u, s, v = torch.svd_lowrank(weight - quantized, q=min(rank + 8, *weight.shape), niter=NITER)
        root = s[:rank].sqrt()
        a, b = root[:, None] * v[:, :rank].T, u[:, :rank] * root
    return {"a": a, "b": b, "a_before": a_before, "b_before": b_before}


def _quantized(matrix: Matrix) -> QuantizedLinear:
    assert matrix.quantized is not None  # `check` has seen to that
    return matrix.quantized


def _original(layer: QuantizedLinear, device: torch.device) -> Tensor:
    if layer.original is None:
        raise ValueError("variant loftq: the base was quantised before it came here: use the full-precision model")
    return layer.original().to(device)
