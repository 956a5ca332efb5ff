"""A variant: LoRA whose A learns slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_number
from trainables.variants.core.peft_variant import PeftVariant


class SlowA(PeftVariant):
    """LoRA whose A learns at `share` of the rate of B; the learning rate is B's."""

    name = "slow_a"
    summary = "LoRA with a smaller learning rate for A"
    paper = "an example"
    parameters = "r (m + n)"
    options = {"share": 0.1}

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_number(cls, config, "share", lambda value: 0 < value <= 1, "use a number above 0, up to 1")

    def param_groups(self) -> list[dict[str, Any]]:
        pairs = [self.factors(matrix.name) for matrix in self.matrices]
        rates = {key: value for key, value in super().param_groups()[0].items() if key != "params"}
        slow = rates | {"lr": rates["lr"] * self.option("share")}
        return [{"params": [a for a, _ in pairs], **slow}, {"params": [b for _, b in pairs], **rates}]
