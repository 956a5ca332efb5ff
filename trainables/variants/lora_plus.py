"""LoRA+: a larger rate for B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_number
from trainables.variants.core.peft_variant import PeftVariant


class LoraPlus(PeftVariant):
    """LoRA whose B learns at `ratio` times the rate of A; the learning rate is A's.

    Hayou et al., LoRA+: Efficient Low Rank Adaptation of Large Models, arXiv 2402.12354, section 4 (its advice
    is a ratio of about 2^4).
    """

    name = "lora_plus"
    summary = "LoRA with a larger learning rate for B"
    paper = "arXiv 2402.12354"
    parameters = "r (m + n)"
    shares_pass = "factors"
    rank_limited = False
    options = {"ratio": 16}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_number(cls, config, "ratio", lambda value: value > 0, "use a number above 0")

    def param_groups(self) -> list[dict[str, Any]]:
        pairs = [self.factors(matrix.name) for matrix in self.matrices]
        rates = {key: value for key, value in super().param_groups()[0].items() if key != "params"}
        fast = rates | {"lr": rates["lr"] * self.option("ratio")}
        return [{"params": [a for a, _ in pairs], **rates}, {"params": [b for _, b in pairs], **fast}]
