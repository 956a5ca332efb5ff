"""LoRA-FA: A is frozen."""

from __future__ import annotations

import torch
from torch import nn

from trainables.variants.core.export import ADAPTER
from trainables.variants.core.one_factor import OneFactor


class LoraFa(OneFactor):
    """LoRA with A frozen at its random start; B follows the projected gradient g (A A^T)^-1 / s^2 under AdamW.

    Zhang et al., LoRA-FA: Efficient and Effective Low Rank Representation Fine-tuning, arXiv 2308.03303. With
    that gradient of B, s B A moves as near to full fine-tuning's gradient step as A's rows allow. The
    optimizer is PEFT's (AdamW with eps 1e-6; it projects in bf16 where the machine has it). A frozen A also
    means that no layer has to keep its inputs `(tokens, n)` for the backward pass, only A x `(tokens, r)`.
    """

    name = "lora_fa"
    summary = "LoRA with A frozen, B trained by the projected gradient"
    paper = "arXiv 2308.03303"
    parameters = "r m"
    shares_pass = "factors"
    step_time = 0.95
    rank_limited = False
    runs_on = frozenset({"hosted", "ddp", "fsdp"})
    not_elsewhere = "its optimizer keeps its state by the layer's name, which DeepSpeed cannot partition"
    frozen = "A"

    def start(self, weight: torch.Tensor, a: nn.Parameter, b: nn.Parameter) -> None:
        """PEFT's: A is Kaiming-uniform, B is zero."""

    def make_optimizer(self) -> torch.optim.Optimizer:
        from peft.optimizers.lorafa import LoraFAOptimizer

        pairs = [
            (f"{matrix.name}.lora_{factor}.{ADAPTER}.weight", parameter, self.scale(matrix.name))
            for matrix in self.matrices
            for factor, parameter in zip("AB", self.factors(matrix.name), strict=True)
        ]
        names, parameters, scales = zip(*pairs, strict=True)
        group = {"params": list(parameters), "names": list(names), "scaling_factors": list(scales)}
        rates = {key: value for key, value in self.param_groups()[0].items() if key != "params"}
        return LoraFAOptimizer([group | rates], betas=(0.9, 0.999))

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rank * rows
