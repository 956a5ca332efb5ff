"""Full fine-tuning of the same matrices: what the others are compared with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from trainables.variants.core.base import Variant
from trainables.variants.core.config import Batches
from trainables.variants.core.layers import place
from trainables.variants.core.matrices import Matrix


class FullLinear(nn.Module):
    """y = W x + bias with a trained fp32 W `(m, n)`, rounded to the input's type at each forward pass."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self.weight = nn.Parameter(matrix.oriented(matrix.weight.data).float().clone())
        self.bias = matrix.module.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias)


class Full(Variant):
    """Every entry of W `(m, n)` is trained, from W0, with AdamW (Loshchilov and Hutter, arXiv 1711.05101).

    W is an fp32 master copy: in bf16, steps far below a weight's last digit would be lost. The base's own
    storage is never written to. Biases, norms and embeddings stay frozen, as for the other variants; rank,
    alpha and dropout have no effect. The learning rate is used as given: full fine-tuning wants rates about
    ten times smaller than LoRA's. The update has full rank, so it is saved as merged weights.
    """

    name = "full"
    quantized = "never"
    summary = "full fine-tuning of the same matrices (rank, alpha, dropout unused)"
    paper = "arXiv 1711.05101"
    parameters = "m n"
    step_time = 1.45
    trains_whole = True
    scale_rule = "1"
    exports_lora = False
    saves = "merged"
    rank_limited = False
    trains_factors = False

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        self.layers: dict[str, FullLinear] = {}
        for matrix in self.matrices:
            layer = FullLinear(matrix)
            place(model, matrix, layer)
            self.layers[matrix.name] = layer
        return model

    def tuned_weights(self) -> dict[str, Tensor]:
        return {name: layer.weight.detach().cpu().clone() for name, layer in self.layers.items()}

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rows * columns
