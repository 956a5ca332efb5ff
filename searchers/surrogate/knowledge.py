"""What is published about LoRA's hyperparameters, as data, and the prior mean made of it.

One number carries most of it: how far the *effective* learning rate of a configuration is from where its optimum is
expected. With s the scale of the update (alpha / rank; alpha / sqrt(rank) for rsLoRA),

    u = log10(rate * s) - log10(rate*),    rate* = RATE * variant * (rank / 16)^RANK * (batch / 64)^BATCH
                                                        * (samples / 50,000)^DURATION

The prior mean of a configuration is `weight * (bump(u - shift) + merit)`: `weight` and `shift` are the surrogate's to
learn from the observations (`Trend`), so a wrong expectation is corrected or given up.

| entry       | what is published                                                          | source                |
|-------------|----------------------------------------------------------------------------|-----------------------|
| RATE        | LoRA's best rates lie around 1e-4 to 6e-4 at alpha = rank, batch 64        | [1] tables 1, 6 to 14 |
| VARIANT     | PiSSA wants lower rates than LoRA, by several times; other starts similar  | [1] 3.3.1, 4.2, H III |
|             | or somewhat lower; DoRA as LoRA                                            |                       |
| BATCH       | the best rate grows with the batch: proportionally [1], as the root [2]    | [1] 3.3.1, H II; [2]  |
| RANK        | it falls as the rank grows                                                 | [1] H IV              |
| DURATION    | and, modestly, as training grows longer                                    | [1] H V, A.3          |
| s           | alpha / rank acts like a factor on the rate                                | [1] E; [3] A10b       |
| LOW, HIGH   | accuracy falls slowly below the best rate and steeply above it             | [1] figures 1, 3      |
| RANK_MERIT  | larger ranks are the more reliable way to gain, at a tuned rate            | [1] H IV              |
| BATCH_MERIT | small and medium batches rather than large ones                            | [1] H I, A.4; [3] 5   |

[1] "Learning Rate Matters: Vanilla LoRA May Suffice for LLM Fine-tuning"; [2] Malladi et al., "On the SDEs and
scaling rules for adaptive gradient algorithms", 2022; [3] "Efficient hyper-parameter search for LoRA via
language-aided Bayesian optimization". Numbers between those of two sources, and numbers where a source gives a
direction only, are our own round ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..space import Space

RATE = 3e-4
VARIANT: dict[str, float] = {"pissa": 0.3, "olora": 0.5, "milora": 0.7, "init_ab": 0.7, "lora_ga": 0.5}
BATCH, RANK, DURATION = 0.75, -0.25, -0.3
# Widths of the bump in decades of the rate, below and above the optimum.
LOW, HIGH = 0.7, 0.45
RANK_MERIT, BATCH_MERIT = 0.05, -0.03  # per doubling, as shares of the bump's height

# Spread of what the surrogate believes about shift (decades; heavy-tailed) and weight (standardised targets).
SHIFT_SCALE, WEIGHT, WEIGHT_SPREAD = 0.3, 2.0, 1.0
COLUMNS = 2


def rate_offset(config: Mapping[str, Any], samples: int | None = None) -> float:
    """u: decades between the configuration's effective learning rate and where its optimum is expected.

    Args:
        samples: training budget of a trial; None leaves the duration out. 0 for a configuration without a rate.
    """
    if "learning_rate" not in config:
        return 0.0
    variant = str(config.get("variant", "lora"))
    rank, batch = float(config.get("rank", 16)), float(config.get("batch_size", 64))
    alpha = float(config.get("alpha", float(config.get("alpha_ratio", 1.0)) * rank))
    scale = alpha / (math.sqrt(rank) if variant == "rslora" else rank)
    expected = RATE * VARIANT.get(variant, 1.0) * (rank / 16) ** RANK * (batch / 64) ** BATCH
    if samples:
        expected *= (samples / 50_000) ** DURATION
    rate = float(config["learning_rate"]) * scale
    return math.log10(rate / expected) if rate > 0 else -10.0


def merit(config: Mapping[str, Any]) -> float:
    """What speaks for a configuration at its best rate, as a share of the bump's height."""
    doublings_of_rank = math.log2(max(1.0, float(config.get("rank", 16))) / 16)
    doublings_of_batch = math.log2(max(1.0, float(config.get("batch_size", 64))) / 64)
    return RANK_MERIT * doublings_of_rank + BATCH_MERIT * doublings_of_batch


class Knowledge:
    """The knowledge about the configurations of one space.

    Args:
        samples: training budget of a trial, where known.
    """

    def __init__(self, space: Space, samples: int | None = None) -> None:
        self.space, self.samples = space, samples

    def columns(self, indices: Sequence[int]) -> np.ndarray:
        """`(n, 2)` float32: rate offset u and merit of each configuration; what `Trend` reads."""
        configs = [self.space.decode(i) for i in indices]
        rows = [(rate_offset(c, self.samples), merit(c)) for c in configs]
        return np.asarray(rows, dtype=np.float32).reshape(len(rows), COLUMNS)

    def values(self, indices: Sequence[int], shift: float = 0.0) -> np.ndarray:
        """Bump and merit of each configuration, `(n,)`, the optimum believed `shift` decades above where expected."""
        columns = self.columns(indices)
        return bump(torch.from_numpy(columns[:, 0] - np.float32(shift))).numpy() + columns[:, 1]

    def first_points(
        self, rng: np.random.Generator, n: int, taken: Sequence[int], exclude: set[int], tries: int = 1024
    ) -> list[int]:
        """`n` configurations to begin with: likely good ones, with the optimum believed at, above and below where
        it is expected, each as far as possible from those `taken`.
        """
        chosen: list[int] = []
        for _ in range(n):
            drawn = self.space.sample(rng, tries, exclude=exclude | set(chosen))
            if not drawn:
                break
            others = [*taken, *chosen]
            k = len(others)
            shift = 0.4 * ((k + 1) // 2) * (1 if k % 2 else -1)
            good = np.argsort(-self.values(drawn, shift), kind="stable")[: max(1, len(drawn) // 50)]
            if others:
                features = self.space.features([drawn[i] for i in good])
                gaps = np.abs(features[:, None] - self.space.features(others)[None]).sum(axis=2).min(axis=1)
                chosen.append(drawn[int(good[int(gaps.argmax())])])
            else:
                chosen.append(drawn[int(good[0])])
        return chosen


def bump(u: Tensor) -> Tensor:
    """1 at u = 0, falling as a Gaussian of width LOW below and HIGH above."""
    width = torch.where(u < 0, torch.as_tensor(LOW, dtype=u.dtype), torch.as_tensor(HIGH, dtype=u.dtype))
    return torch.exp(-0.5 * (u / width).square())


class Trend(nn.Module):
    """The prior mean on standardised targets: `weight * (bump(u - shift) + merit)`, both learned."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.log_weight = nn.Parameter(torch.tensor(math.log(WEIGHT), dtype=torch.float64))

    def forward(self, columns: Tensor) -> Tensor:
        """Prior means `(n,)` of `Knowledge.columns` `(n, 2)`."""
        columns = columns.double()
        return self.log_weight.exp() * (bump(columns[:, 0] - self.shift) + columns[:, 1])

    def log_prior(self) -> Tensor:
        """Log density of shift (Student, 2 degrees of freedom) and weight (log-normal), up to a constant."""
        shift = -1.5 * torch.log1p((self.shift / SHIFT_SCALE).square() / 2)
        return shift - 0.5 * ((self.log_weight - math.log(WEIGHT)) / WEIGHT_SPREAD).square()

    def starts(self) -> list[tuple[float, float]]:
        """Pairs (shift, log weight) to compare before fitting: the bump is flat far from its centre."""
        weights = (math.log(WEIGHT), math.log(WEIGHT / 8))
        return [(shift, weight) for shift in (0.0, 0.5, -0.5, 1.0, -1.0, 1.6, -1.6) for weight in weights]
