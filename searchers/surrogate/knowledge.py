"""The prior mean that recorded runs teach (`learned`): where LoRA's best learning rate lies, and what else has merit.

One number carries most of it: how far the learning rate of a configuration is from where its optimum is expected,

    u = log10 rate - learned location of the configuration, see `learned`.

The prior mean of a configuration is `weight (shape(u - shift - tilt t) + merit)`. Neither weight, shift nor tilt is
known: each triple of a grid is a *hypothesis*, and the surrogate holds a probability for each
(`deep_kernel.Surrogate`). A wrong expectation thus loses its probability to a better one, or to the hypothesis that
knows nothing (weight 0). A tilt moves the learned exponents along their main uncertainty. How likely a shift is
beforehand depends on two things: best rates scatter around what is learned (Student, with the learned spread), and
people put the range that they search around the optimum (normal, RANGE_SHARE of the range), as [1] of `facts` states of
its own (3.2).
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
from .facts import SHORT, SHORT_MERIT, scale_of
from .learned import Context, Learned, Shape, shipped

# Prior over the hypotheses.
RANGE_SHARE = 0.25
SHIFTS = np.round(np.arange(-2.4, 2.41, 0.15), 2)
WEIGHTS = (1.0, 2.0, 3.5)  # in standard deviations of the targets
P_NOTHING = 0.1
# Standard deviations along the main uncertainty of the exponents, and their probabilities
# (three-point Gauss-Hermite quadrature).
TILTS = {-math.sqrt(3.0): 1 / 6, 0.0: 2 / 3, math.sqrt(3.0): 1 / 6}
# A belief of the user's own: its height, as a share of the bump's, and its width, as a share of the knob's range.
BELIEF, BELIEF_WIDTH = 0.15, 0.25


@dataclass(frozen=True)
class Knowledge:
    """The knowledge about the configurations of one space.

    Args:
        space: what is searched.
        samples: training budget of a trial, where known.
        parameters: of the base model that a token meets, where known.
        beliefs: the user's own, `{knob: value believed best}`, and under `strength` how sure (1 by default). A belief
            in a learning rate replaces what is learned of where it lies.
        ratios: best rate of variants as multiples of LoRA's, where known better than from recorded runs.
        misplaced: a factor on the expected rate: how a wrong expectation is simulated.
        scales: how alpha scales variants, see `scale_of`, where that is not alpha / rank.
        learned: from recorded runs; by default what comes with the package.
        family: of the base model, where known.

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
    learned: Learned = field(default_factory=shipped)
    family: str | None = None

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

    def offset(self, config: Mapping[str, Any]) -> float:
        """u of a configuration, decades; 0 without a learning rate."""
        if "learning_rate" not in config:
            return 0.0
        return float(self._offsets([config], self._features(config)[None])[0])

    def _features(self, config: Mapping[str, Any]) -> np.ndarray:
        """Of the learned prior, `(k,)`."""
        known = Context(self.samples, self.parameters, self.family)
        return self.learned.describe(config, known, scale_of(config, self.scales.get(str(config.get("variant")))))

    def _offsets(self, configs: Sequence[Mapping[str, Any]], features: np.ndarray) -> np.ndarray:
        """u of configurations, `(n,)`."""
        rates = np.array([float(c.get("learning_rate", 0.0)) for c in configs])
        places = self.learned.location(features, self.family) + [self._measured(c) for c in configs]
        here = np.where(rates > 0, np.log10(np.maximum(rates, 1e-30)) - places, -10.0)
        return np.where(["learning_rate" in c for c in configs], here, 0.0)

    def _measured(self, config: Mapping[str, Any]) -> float:
        """Decades by which a measured rate of a variant, or a wrong expectation, moves the learned place."""
        variant = str(config.get("variant", "lora"))
        moved = math.log10(self.misplaced)
        if variant in self.ratios:
            moved += math.log10(self.ratios[variant]) - self.learned.coefficient(f"variant {variant}")
        return moved

    def merit(self, config: Mapping[str, Any]) -> float:
        """What speaks for a configuration at its best rate, as a share of the bump's height."""
        merit = 0.0
        # A belief of the user's own replaces what is learned of its knob.
        if "rank" not in self.beliefs:
            merit += self.learned.rank_gain * math.log2(max(1.0, float(config.get("rank", 16))) / 16)
        if "batch_size" not in self.beliefs:
            batch = max(1.0, float(config.get("batch_size", 64)))
            merit += self.learned.batch_gain * math.log2(batch / 64)
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
        """`(n, 3)`: offset u, re-centred on the user's belief where there is one, merit and tilt of each configuration.

        The tilt is how far one standard deviation of the learned exponents moves the best rate against that of the
        space's middle.
        """
        configs = [self.space.decode(i) for i in indices]
        table = np.zeros((len(configs), 3))
        table[:, 1] = [self.merit(c) for c in configs]
        if configs:
            features = np.array([self._features(c) for c in configs])
            table[:, 0] = self._offsets(configs, features)
            table[:, 2] = (features - self._direction[0]) @ self._direction[1]
        if "learning_rate" in self.beliefs:
            middle = self.space.decode(len(self.space) // 2)
            table[:, 0] -= self.offset(middle | {"learning_rate": self.beliefs["learning_rate"]})
        return table

    @cached_property
    def _direction(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean features of the space, and what the exponents' main uncertainty about their differences does, `(k,)`."""
        some = np.random.default_rng(0).choice(len(self.space), size=min(256, len(self.space)), replace=False)
        features = np.array([self._features(self.space.decode(int(i))) for i in some])
        middle = features.mean(axis=0)
        root = np.linalg.cholesky(np.array(self.learned.covariance) + 1e-12 * np.eye(features.shape[1]))
        _, _, axes = np.linalg.svd((features - middle) @ root, full_matrices=False)
        return middle, root @ axes[0]

    def hypotheses(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shifts and tilts `(2, H)`, weights `(H,)` and the log of their prior probabilities `(H,)`."""
        believed = "learning_rate" in self.beliefs
        inside = self._direction[0] @ np.array(self.learned.covariance) @ self._direction[0]
        spread = math.hypot(self.learned.unexplained(self.family), math.sqrt(max(float(inside), 0.0)))
        log_shift = -1.5 * np.log1p((SHIFTS * (self.strength if believed else 1.0) / spread) ** 2 / 2)
        centre = None if believed else self._range_centre()
        if centre is not None:
            log_shift = log_shift - 0.5 * ((SHIFTS - centre[0]) / centre[1]) ** 2
        log_shift -= np.log(np.exp(log_shift).sum())
        kinds = [
            (tilt, weight, math.log((1 - P_NOTHING) * p / len(WEIGHTS)))
            for tilt, p in TILTS.items()
            for weight in WEIGHTS
        ]
        shifts = np.concatenate([[0.0], np.tile(SHIFTS, len(kinds))])
        tilted = np.concatenate([[0.0], np.repeat([tilt for tilt, _, _ in kinds], len(SHIFTS))])
        weights = np.concatenate([[0.0], np.repeat([weight for _, weight, _ in kinds], len(SHIFTS))])
        log_prior = np.concatenate([[math.log(P_NOTHING)], *(log_shift + log_p for _, _, log_p in kinds)])
        return np.stack([shifts, tilted]), weights, log_prior

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


def prior_means(columns: np.ndarray, shifts: np.ndarray, weights: np.ndarray, shape: Shape) -> np.ndarray:
    """Prior means `(n, H)` of `Knowledge.columns` `(n, 3)`, one per hypothesis, on standardised targets.

    Args:
        shifts: and tilts, `(2, H)`. shape: of values around the best rate.
    """
    places = shifts[0] + columns[:, 2:3] * shifts[1]
    return weights * (shape(columns[:, :1] - places) + columns[:, 1:2])


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
