"""DoRA: magnitude and direction apart."""

from __future__ import annotations

import torch
from torch import nn

from trainables.variants.core.export import ADAPTER
from trainables.variants.core.peft_variant import PeftVariant


class Dora(PeftVariant):
    """W = mag * (W0 + s B A) / ||W0 + s B A||, one norm per output, over its inputs; mag `(m,)` is trained.

    Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, arXiv 2402.09353, equation 5; the norm is a
    constant to the gradient (section 4.3). It depends on W0, so there is no plain LoRA equal to it.

    Cost: each forward pass forms B A, an (m, n) fp32 matrix per layer, one at a time, to take the norms. That
    is time per *call*, whatever the number of tokens: larger micro-batches pay it less often.
    """

    name = "dora"
    summary = "LoRA on the direction of each weight row, with a trained magnitude"
    paper = "arXiv 2402.09353"
    parameters = "r (m + n) + m"
    shares_pass = "layer"
    step_time = 1.33
    activations = 1.9
    rank_limited = False
    exports_lora = False

    def lora_settings(self) -> dict[str, object]:
        return {"use_dora": True}

    def initialise(self) -> None:
        # PEFT rounds the first norms to the base's type but divides by fp32 norms: over bf16 it would start
        # off the pretrained function by up to 2^-9 in every row.
        with torch.no_grad():
            for matrix in self.matrices:
                norms = torch.linalg.norm(matrix.oriented(matrix.weight).float(), dim=1)
                self.layer(matrix.name).lora_magnitude_vector[ADAPTER].weight.copy_(norms)

    def block(self, name: str) -> list[nn.Parameter]:
        """A and B: the magnitude is no factor."""
        return list(self.factors(name))

    def to_lora(self) -> None:
        return None

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rank * (rows + columns) + rows
