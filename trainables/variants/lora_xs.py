"""LoRA-XS: a small square matrix between frozen singular vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig, Batches
from trainables.variants.core.decompositions import top_svd
from trainables.variants.core.layers import AdaptedLinear, place
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_number, check_whole
from trainables.variants.core.plain import PlainLora


class LoraXSLinear(AdaptedLinear):
    """W0 x + s B R A x: A `(r, n)` and B `(m, r)` frozen, R `(r, r)` trained."""

    a: Tensor
    b: Tensor

    def __init__(self, matrix: Matrix, a: Tensor, b: Tensor, core: Tensor, scale: float, dropout: float) -> None:
        super().__init__(matrix, dropout)
        self.register_buffer("a", a, persistent=False)
        self.register_buffer("b", b, persistent=False)
        self.core = nn.Parameter(core)
        self.scale = scale

    def update(self, x: Tensor) -> Tensor:
        inner = F.linear(x.float(), self.a)  # (..., r)
        return F.linear(inner, self.b @ (self.scale * self.core))


class LoraXS(Variant):
    """W = W0 + s B R A with B = U_r S_r and A = V_r^T from the top r of W0 = U S V^T; only R `(r, r)` is trained.

    Balazy et al., LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters, arXiv 2405.17604,
    section 3. R starts as N(0, sigma^2) with sigma = 1e-5, so the start is the pretrained function up to
    s sigma ||S_r||. r^2 parameters per matrix, whatever its size: learning rates are larger than LoRA's.

    The saved state holds A and B too: another machine's SVD may differ in signs.
    """

    name = "lora_xs"
    summary = "only an r x r core between frozen singular vectors is trained"
    paper = "arXiv 2405.17604"
    parameters = "r^2"
    float32_only = True
    shares_pass = "layer"
    trains_factors = False
    options = {"niter": 4, "sigma": 1e-5}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_whole(cls, config, "niter", least=0)
        check_number(cls, config, "sigma", lambda value: 0 < value <= 1, "use a number above 0, up to 1")

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        config = self.config
        self.layers: dict[str, LoraXSLinear] = {}
        for matrix in self.matrices:
            weight = matrix.oriented(matrix.weight.data)
            u, s, v = top_svd(weight, config.rank, self.option("niter"))  # (m, r), (r,), (n, r)
            core = self.option("sigma") * torch.randn(config.rank, config.rank, device=weight.device)
            layer = LoraXSLinear(matrix, v.T.contiguous(), u * s, core, config.alpha / config.rank, config.dropout)
            place(model, matrix, layer)
            self.layers[matrix.name] = layer
        return model

    def state(self) -> dict[str, Tensor]:
        state = super().state()
        for name, layer in self.layers.items():
            state[f"{name}.a"], state[f"{name}.b"] = layer.a.cpu().clone(), layer.b.cpu().clone()
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:  # type: ignore[override]
        self.check_state(state, {name: tensor.shape for name, tensor in self.state().items()})
        frozen = {f"{name}.{factor}" for name in self.layers for factor in "ab"}
        super().load_state({name: tensor for name, tensor in state.items() if name not in frozen})
        for name, layer in self.layers.items():
            layer.a.copy_(state[f"{name}.a"])
            layer.b.copy_(state[f"{name}.b"])

    def to_lora(self) -> PlainLora | None:
        """A as it is, B R in the place of B; the same rank and scale."""
        factors = {}
        for name, layer in self.layers.items():
            factors[name] = (layer.a.cpu().clone(), (layer.b @ layer.core.detach()).cpu())
        return PlainLora(factors, {name: layer.scale for name, layer in self.layers.items()})

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rank * rank
