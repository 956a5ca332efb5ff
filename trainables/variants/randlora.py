"""RandLoRA: full-rank updates from scaled random bases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from trainables.variants.core.export import ADAPTER, peft_number, save_native
from trainables.variants.core.peft_variant import PeftVariant

if TYPE_CHECKING:
    from peft import PeftConfig


class RandLora(PeftVariant):
    """W = W0 + s sum_i B_i diag(l_i) A diag(g_i), i = 1 .. N with N = ceil(min(m, n) / r): full rank from small parts.

    l_i `(r,)` and g_i `(min(m, n),)` are trained; A `(r, min(m, n))` and B_i `(max(m, n), r)` are random, drawn
    from the configuration's seed and shared by all matrices (for m < n the product is transposed). Albert et
    al., RandLoRA: Full-Rank Parameter-Efficient Fine-Tuning of Large Models, arXiv 2502.00987, equation 4. A
    *smaller* r means more bases, more parameters and more time. s = alpha / r; the paper uses large alphas,
    20 r and more.

    The update has full rank, so no smaller LoRA is equal to it: the folder is PEFT's own form, with the bases.
    """

    name = "randlora"
    summary = "trained scalings of many shared random bases, full rank"
    paper = "arXiv 2502.00987"
    parameters = "N (r + min(m, n)), N = ceil(min(m, n) / r)"
    shares_pass = "layer"
    step_time = 1.5
    activations = 1.5
    trains_factors = False
    exports_lora = False

    def peft_config(self, targets: list[str]) -> PeftConfig:
        from peft import RandLoraConfig

        config = self.config
        return RandLoraConfig(
            r=config.rank,
            randlora_alpha=peft_number(config.alpha),
            projection_prng_key=config.seed,
            randlora_dropout=config.dropout,
            target_modules=targets,
            fan_in_fan_out=any(matrix.transposed for matrix in self.matrices),
        )

    def to_lora(self) -> None:
        return None

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        config = self.tuner.peft_config[ADAPTER]
        bases = {name: getattr(self.tuner, name)[ADAPTER] for name in ("randlora_A", "randlora_B")}
        return save_native(self.module, config, folder, base_model, shared=bases)

    def merge_into(self, model: nn.Module) -> nn.Module:
        # PEFT rounds the update to the base's type before it adds it.
        with torch.no_grad():
            for matrix in self.matrices:
                weight = model.get_submodule(matrix.name).weight
                delta = self.layer(matrix.name).get_delta_weight(ADAPTER).to(weight.device)
                weight.data = (weight.data.float() + delta.float()).to(weight.dtype)
        return model

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        shorter = min(rows, columns)
        return -(-shorter // rank) * (rank + shorter)
