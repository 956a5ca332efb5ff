"""What is published about LoRA's hyperparameters, as data with its sources, and the prior mean made of it.

One number carries most of it: how far the *effective* learning rate of a configuration is from where its optimum is
expected. With s the scale of the update (alpha / rank; alpha / sqrt(rank) for rsLoRA),

    u = log10(rate s) - log10(rate*),    rate* = RATE variant (rank / 16)^RANK (parameters / 1e9)^SIZE pace,
    pace = (batch / 64)^BATCH (samples / 50,000)^DURATION,

or, where a run has fewer steps than SHORT and that is more,

    pace = min(SHORT / steps, SHORT_MOST), and (rank / 16)^SHORT_RANK instead of RANK:

what noise allows does not matter where the steps are too few to get anywhere.

The prior mean of a configuration is `weight (bump(u - shift) + merit)`. Neither weight nor shift is known: each pair of
a grid is a *hypothesis*, and the surrogate holds a probability for each (`deep_kernel.Surrogate`). A wrong expectation
thus loses its probability to a better one, or to the hypothesis that knows nothing (weight 0). How likely a shift is
beforehand depends on two things: published optima scatter around rate* (Student, SHIFT_SCALE), and people put the range
that they search around the optimum (normal, RANGE_SHARE of the range), as [1] states of its own (3.2).

[1] "Learning Rate Matters: Vanilla LoRA May Suffice for LLM Fine-tuning"; [2] Malladi et al., "On the SDEs and scaling
rules for adaptive gradient algorithms", 2022; [3] "Efficient hyper-parameter search for LoRA via language-aided
Bayesian optimization"; [4] Schulman et al., "LoRA Without Regret", 2025; [5] Kingma and Ba,
"Adam: a method for stochastic optimization", 2015. Numbers between those of two sources, and
numbers where a source gives a direction only, are our own round ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import OptionError
from ..space import Knob, Space


@dataclass(frozen=True)
class Fact:
    """A published finding: the number used here, what is published, and where."""

    value: float
    claim: str
    source: str


RATE = Fact(3e-4, "LoRA's best rates lie around 1e-4 to 6e-4 at alpha = rank and batch size 64", "[1] tables 1, 6-14")
BATCH = Fact(0.75, "the best rate grows with the batch size: proportionally, or as its root", "[1] 3.3.1, H II; [2]")
RANK = Fact(-0.25, "the best rate falls as the rank grows", "[1] H IV")
DURATION = Fact(-0.15, "the best rate falls, modestly, as training grows longer", "[1] H V, A.3; [4]")
SHORT = Fact(
    45.0,
    "Adam moves a weight by about the rate per step, so a run of few steps wants a rate in inverse proportion to them",
    "[5] 2.1; the number is of this project's own sweep (docs/sweeps): 3e-3 after 16 steps on 135M parameters",
)
SHORT_RANK = Fact(
    -1.0,
    "Adam's step is of one size in every entry of B, so that it moves the output by rate s times the sum of |a_j x| "
    "over the directions j: by the rank",
    "our own, for B = 0 and A of one deviation at the start",
)
SHORT_MOST = Fact(20.0, "beyond some rate training breaks down, however few the steps", "[1] figures 1, 3")
SHORT_MERIT = Fact(
    -0.1,
    "of runs too short to get anywhere, the one with more steps gets further: per halving of the steps below SHORT",
    "our own, from SHORT and SHORT_MOST: no rate makes up for the steps",
)
SIZE = Fact(-0.3, "larger base models want smaller rates", "[4]")
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

# Prior over the hypotheses.
SHIFT_SCALE, RANGE_SHARE = 0.35, 0.25
SHIFTS = np.round(np.arange(-2.4, 2.41, 0.15), 2)
WEIGHTS = (1.0, 2.0, 3.5)  # in standard deviations of the targets
P_NOTHING = 0.1
# A belief of the user's own: its height, as a share of the bump's, and its width, as a share of the knob's range.
BELIEF, BELIEF_WIDTH = 0.15, 0.25


@dataclass(frozen=True)
class Knowledge:
    """The knowledge about the configurations of one space.

    Args:
        space: what is searched.
        samples: training budget of a trial, where known.
        parameters: size of the base model, where known.
        beliefs: the user's own, `{knob: value believed best}`, and under `strength` how sure (1 by default). A belief
            in a learning rate replaces what is published on where it lies.
        ratios: best rate of variants as multiples of LoRA's, where known better than by VARIANTS.
        misplaced: a factor on the expected rate: how a wrong expectation is simulated.
        scales: how alpha scales variants, see `scale_of`, where that is not alpha / rank.

    Raises:
        ValueError: a belief names no knob of the space, or a value that cannot be compared.
    """

    space: Space
    samples: int | None = None
    parameters: float | None = None
    beliefs: Mapping[str, Any] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)
    misplaced: float = 1.0
    scales: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strength = self.beliefs.get("strength", 1.0)
        if not isinstance(strength, int | float) or isinstance(strength, bool) or not strength > 0:
            raise OptionError("prior.strength", f"{strength!r} is not a number above 0", value=strength)
        for name, value in self.beliefs.items():
            if name == "strength":
                continue
            if name not in self.space.names:
                raise OptionError(
                    f"prior.{name}",
                    f"no such knob; use {', '.join(self.space.names)} or strength",
                    value=value,
                    allowed=self.space.names,
                )
            _coordinate(self._knob(name), value)

    @property
    def strength(self) -> float:
        return float(self.beliefs.get("strength", 1.0))

    def expected_rate(self, config: Mapping[str, Any]) -> float:
        """rate*: where the optimum of the effective rate is expected."""
        variant = str(config.get("variant", "lora"))
        rate = RATE.value * self.ratios.get(variant, VARIANTS[variant].value if variant in VARIANTS else 1.0)
        size, batch = float(config.get("rank", 16)) / 16, float(config.get("batch_size", 64))
        pace = size**RANK.value * (batch / 64) ** BATCH.value
        if self.samples:
            pace *= (self.samples / 50_000) ** DURATION.value
            short = SHORT.value * batch / self.samples
            if short > 1:
                pace = max(pace, size**SHORT_RANK.value * min(short, SHORT_MOST.value))
        rate *= pace
        if self.parameters:
            rate *= (self.parameters / 1e9) ** SIZE.value
        return rate * self.misplaced

    def offset(self, config: Mapping[str, Any]) -> float:
        """u of a configuration, decades; 0 without a learning rate."""
        if "learning_rate" not in config:
            return 0.0
        rate = float(config["learning_rate"]) * scale_of(config, self.scales.get(str(config.get("variant"))))
        return math.log10(rate / self.expected_rate(config)) if rate > 0 else -10.0

    def merit(self, config: Mapping[str, Any]) -> float:
        """What speaks for a configuration at its best rate, as a share of the bump's height."""
        merit = 0.0
        # A belief of the user's own replaces what is published on its knob.
        if "rank" not in self.beliefs:
            merit += RANK_MERIT.value * math.log2(max(1.0, float(config.get("rank", 16))) / 16)
        if "batch_size" not in self.beliefs:
            batch = max(1.0, float(config.get("batch_size", 64)))
            merit += BATCH_MERIT.value * math.log2(batch / 64)
            merit += SHORT_MERIT.value * (self._halvings(batch) - self._halvings(self._least_batch))
        for name, value in self.beliefs.items():
            if name not in ("strength", "learning_rate") and name in config:
                gap = _coordinate(self._knob(name), config[name]) - _coordinate(self._knob(name), value)
                merit += BELIEF * self.strength * math.exp(-0.5 * float(np.square(gap / BELIEF_WIDTH).sum()))
        return merit

    def _halvings(self, batch: float) -> float:
        """How often SHORT must be halved to come down to the steps of a trial; 0 where it has that many."""
        return max(0.0, math.log2(SHORT.value * batch / self.samples)) if self.samples else 0.0

    @cached_property
    def _least_batch(self) -> float:
        return min(
            (max(1.0, float(value)) for knob in self.space.knobs if knob.name == "batch_size" for value in knob.values),
            default=64.0,
        )

    def columns(self, indices: Sequence[int]) -> np.ndarray:
        """`(n, 2)`: offset u, re-centred on the user's belief where there is one, and merit of each configuration."""
        rows = [(self.offset(c), self.merit(c)) for c in map(self.space.decode, indices)]
        table = np.asarray(rows, dtype=np.float64).reshape(len(rows), 2)
        if "learning_rate" in self.beliefs:
            middle = self.space.decode(len(self.space) // 2)
            table[:, 0] -= self.offset(middle | {"learning_rate": self.beliefs["learning_rate"]})
        return table

    def hypotheses(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shifts `(H,)`, weights `(H,)` and the log of their prior probabilities `(H,)`."""
        believed = "learning_rate" in self.beliefs
        log_shift = -1.5 * np.log1p((SHIFTS * (self.strength if believed else 1.0) / SHIFT_SCALE) ** 2 / 2)
        centre = None if believed else self._range_centre()
        if centre is not None:
            log_shift = log_shift - 0.5 * ((SHIFTS - centre[0]) / centre[1]) ** 2
        log_shift -= np.log(np.exp(log_shift).sum())
        shifts = np.concatenate([[0.0], np.tile(SHIFTS, len(WEIGHTS))])
        weights = np.concatenate([[0.0], np.repeat(WEIGHTS, len(SHIFTS))])
        each = math.log((1 - P_NOTHING) / len(WEIGHTS))
        return shifts, weights, np.concatenate([[math.log(P_NOTHING)], np.tile(log_shift + each, len(WEIGHTS))])

    def _range_centre(self) -> tuple[float, float] | None:
        """Offset at the middle of the searched rates, and the spread to allow for; None without such a knob."""
        knob = next((k for k in self.space.knobs if k.name == "learning_rate" and len(k) > 1), None)
        if knob is None or knob.kind != "ordinal":
            return None
        if min(knob.values) <= 0:
            return None
        rates = np.log10(np.array(knob.values, dtype=float))
        some = np.random.default_rng(0).choice(len(self.space), size=min(512, len(self.space)), replace=False)
        configs = [c for c in map(self.space.decode, map(int, some)) if "learning_rate" in c]
        rest = np.median([self.offset(c) - math.log10(float(c["learning_rate"])) for c in configs])
        spread = max(0.3, RANGE_SHARE * float(rates.max() - rates.min()))
        return 0.5 * float(rates.max() + rates.min()) + float(rest), spread

    def _knob(self, name: str) -> Knob:
        return self.space.knobs[self.space.names.index(name)]


def _coordinate(knob: Knob, value: object) -> np.ndarray:
    """Where a value lies in the knob's range, also between its values."""
    if knob.kind == "categorical":
        return np.eye(len(knob))[knob.position(value)]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise OptionError(f"prior.{knob.name}", f"{value!r} is not a finite number", value=value)
    x, ends = float(value), np.array([knob.values[0], knob.values[-1]], dtype=float)
    if knob.log:
        if x <= 0:
            raise OptionError(f"prior.{knob.name}", f"{value!r} is not above 0", value=value)
        x, ends = math.log(x), np.log(ends)
    return np.array([(x - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.0])


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


def bump(u: np.ndarray) -> np.ndarray:
    """1 at u = 0, falling as a Gaussian of width LOW below and HIGH above."""
    return np.exp(-0.5 * np.square(u / np.where(u < 0, LOW.value, HIGH.value)))


def prior_means(columns: np.ndarray, shifts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Prior means `(n, H)` of `Knowledge.columns` `(n, 2)`, one per hypothesis, on standardised targets."""
    return weights * (bump(columns[:, :1] - shifts) + columns[:, 1:])


def first_points(means: np.ndarray, log_prior: np.ndarray, taken: Sequence[int], free: np.ndarray, n: int) -> list[int]:
    """Where to begin: the `n` rows that, with those `taken`, are expected to hold the best value.

    Greedy maximisation of `E[max over chosen rows of the prior mean]`, the expectation over the hypotheses. A second
    point is thus put where the first would be poor.

    Args:
        means: `(c, H)` prior means. free: `(c,)` bool, which rows may be chosen.
    """
    p = np.exp(log_prior - log_prior.max())
    p /= p.sum()
    best = means[list(taken)].max(axis=0) if len(taken) else np.full(means.shape[1], -np.inf)
    free = free.copy()
    chosen: list[int] = []
    for _ in range(n):
        if not free.any():
            break
        at = int(np.where(free, np.maximum(means, best) @ p, -np.inf).argmax())
        chosen.append(at)
        free[at] = False
        best = np.maximum(best, means[at])
    return chosen
