"""What is published about LoRA's hyperparameters, as numbers with their sources.

[1] "Learning Rate Matters: Vanilla LoRA May Suffice for LLM Fine-tuning"; [2] Malladi et al., "On the SDEs and scaling
rules for adaptive gradient algorithms", 2022; [3] "Efficient hyper-parameter search for LoRA via language-aided
Bayesian optimization"; [4] Schulman et al., "LoRA Without Regret", 2025; [5] Kingma and Ba,
"Adam: a method for stochastic optimization", 2015; [6] Dettmers et al., "QLoRA: efficient finetuning of quantized
LLMs", 2023. Numbers between those of two sources, and
numbers where a source gives a direction only, are our own round ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import OptionError

# Publications whose runs are among the recorded tables, by the tables' origin (`fitting`).
ORIGINS = {"[1]": "learning-rate-matters"}


@dataclass(frozen=True)
class Fact:
    """A published finding: the number used here, what is published, and where."""

    value: float
    claim: str
    source: str

    def rests_on(self, origins: Collection[str]) -> bool:
        """Whether nothing but publications of these origins of recorded runs says so."""
        cited = re.findall(r"\[\d+\]", self.source)
        return bool(cited) and all(ORIGINS.get(one) in origins for one in cited)


RATE = Fact(3e-4, "LoRA's best rates lie around 1e-4 to 6e-4 at alpha = rank and batch size 64", "[1] tables 1, 6-14")
USUAL_RATE = Fact(2e-4, "what people use", "[6] table 9")
BATCH = Fact(0.5, "the best rate grows with the batch size: as its root, or proportionally", "[2]; [1] 3.3.1, H II")
RANK = Fact(-0.25, "the best rate falls as the rank grows, at alpha = rank", "[1] H IV")
SCALE = Fact(-0.5, "between rate and alpha as one knob, -1, and an alpha that does not matter, 0", "our own")
DURATION = Fact(-0.15, "the best rate falls, modestly, as training grows longer", "[1] H V, A.3; [4]")
SHORT = Fact(
    45.0,
    "Adam moves a weight by about the rate per step, so a run of few steps wants a rate in inverse proportion to them",
    "[5] 2.1; the number is of this project's own sweep (docs/sweeps): 3e-3 after 16 steps on 135M parameters",
)
SHORT_PACE = Fact(
    0.8, "the best rate goes nearly with the inverse of the steps where these are fewer than SHORT", "our own"
)
SHORT_MOST = Fact(20.0, "beyond some rate training breaks down, however few the steps", "[1] figures 1, 3")
SHORT_MERIT = Fact(
    -0.1,
    "of runs too short to get anywhere, the one with more steps gets further: per halving of the steps below SHORT",
    "our own, from SHORT and SHORT_MOST: no rate makes up for the steps",
)
SIZE = Fact(-0.15, "larger base models want smaller rates", "[4]")
SIZE_BEYOND = Fact(-0.05, "beyond 10B by far less", "our own")
LOW = Fact(0.7, "accuracy falls slowly below the best rate (decades)", "[1] figures 1, 3")
HIGH = Fact(0.45, "accuracy falls steeply above the best rate (decades)", "[1] figures 1, 3")
RANK_MERIT = Fact(0.05, "larger ranks are the more reliable way to gain, at a tuned rate", "[1] H IV")
BATCH_MERIT = Fact(-0.03, "small and medium batches rather than large ones", "[1] H I, A.4; [3] 4.2")

# Best learning rate of a variant as a multiple of LoRA's.
VARIANTS: dict[str, Fact] = {
    "pissa": Fact(0.3, "needs a smaller learning rate than LoRA", "[1] 3.3.1, 4.2"),
    "olora": Fact(0.06, "needs a learning rate more than ten times smaller than LoRA's", "[1] 4.2, I.3"),
    "lora_ga": Fact(0.06, "needs a learning rate more than ten times smaller than LoRA's", "[1] 4.2, A.1"),
    "milora": Fact(0.7, "takes a slightly smaller learning rate than LoRA", "[1] 3.3.1, 4.2"),
    "init_ab": Fact(0.7, "takes a slightly smaller learning rate than LoRA", "[1] 3.3.1, 4.2"),
    "randlora": Fact(0.7, "takes a slightly smaller learning rate than LoRA", "[1] A.1"),
    "dora": Fact(1.0, "takes LoRA's learning rate or a slightly larger one", "[1] A.1"),
    "gralora": Fact(1.2, "takes LoRA's learning rate or a slightly larger one", "[1] A.1"),
    "loft": Fact(1.2, "takes LoRA's learning rate or a slightly larger one", "[1] A.1"),
    "full": Fact(0.1, "needs about a tenth of LoRA's learning rate", "[4]"),
}


def scale_of(config: Mapping[str, Any], rule: str | None = None) -> float:
    """s of a configuration; 1 where it says nothing about alpha.

    Args:
        rule: `alpha / rank` (as None), `alpha / sqrt(rank)`, or `1` where the variant does not read alpha.

    Raises:
        ValueError: another rule.
    """
    if rule == "1":
        return 1.0
    if rule not in (None, "alpha / rank", "alpha / sqrt(rank)"):
        raise OptionError("scales", f"{rule!r} is unknown; use alpha / rank, alpha / sqrt(rank) or 1", value=rule)
    rank = float(config.get("rank", 16))
    alpha = float(config.get("alpha", float(config.get("alpha_ratio", 1.0)) * rank))
    return alpha / (math.sqrt(rank) if rule == "alpha / sqrt(rank)" else rank)
