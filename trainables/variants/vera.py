"""VeRA: trained vectors between shared random bases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.export import ADAPTER
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_number
from trainables.variants.core.peft_variant import PeftVariant
from trainables.variants.core.plain import PlainLora

if TYPE_CHECKING:
    from peft import PeftConfig


class Vera(PeftVariant):
    """W = W0 + diag(b) B diag(d) A: d `(r,)` and b `(m,)` are trained, A and B are random and shared by all matrices.

    Kopiczko et al., VeRA: Vector-based Random Matrix Adaptation, arXiv 2310.11454, equation 2; d starts at
    `d_initial`, b at zero. A matrix uses the first n columns of A and the first m rows of B, drawn from the
    configuration's seed. There is no scale: alpha is not read. The paper's ranks (256, 1024) and rates (ten
    times LoRA's) are larger; r may exceed the sides of a matrix.

    Exported as plain LoRA of rank r, A' = A[:, :n] and B' = diag(b) B[:m] diag(d): exact, but each matrix then
    carries factors of its own.
    """

    name = "vera"
    summary = "trained scaling vectors between shared random factors"
    paper = "arXiv 2310.11454"
    parameters = "r + m"
    float32_only = True
    shares_pass = "layer"
    step_time = 1.1
    scale_rule = "1"
    options = {"d_initial": 0.1}
    rank_limited = False
    trains_factors = False

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_number(cls, config, "d_initial", lambda value: value != 0, "use a number other than 0")

    def peft_config(self, targets: list[str]) -> PeftConfig:
        from peft import VeraConfig

        config = self.config
        return VeraConfig(
            r=config.rank,
            projection_prng_key=config.seed,
            vera_dropout=config.dropout,
            d_initial=self.option("d_initial"),
            target_modules=targets,
            fan_in_fan_out=any(matrix.transposed for matrix in self.matrices),
        )

    def to_lora(self) -> PlainLora:
        factors = {}
        for matrix in self.matrices:
            layer = self.layer(matrix.name)
            a, b = layer.vera_A[ADAPTER][:, : matrix.columns], layer.vera_B[ADAPTER][: matrix.rows]
            d, outer = layer.vera_lambda_d[ADAPTER].detach(), layer.vera_lambda_b[ADAPTER].detach()
            factors[matrix.name] = a.cpu().float().clone(), (outer[:, None] * b * d).cpu().float()
        return PlainLora(factors, dict.fromkeys(factors, 1.0))

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        # Plain LoRA rather than PEFT's own form: more tools serve it.
        return Variant.save_adapter(self, folder, base_model)

    @classmethod
    def matrix_parameters(cls, rows: int, columns: int, rank: int) -> int:
        return rank + rows
