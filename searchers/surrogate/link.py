"""What trials are worth by the task's metric and their validation loss together.

On a few validation rows a metric says little: a score of 0.000 everywhere, or differences below its own error. The
loss of the same rows still tells trials apart. How far it tells the metric is learned from the run's own trials.

| symbol | meaning                                                                              | shape |
|--------|--------------------------------------------------------------------------------------|-------|
| m, e   | reported metric, larger is better, and its standard error                            | (n,)  |
| g      | minus the loss, its poor half drawn in (`targets.Warp`), mean 0 and variance 1       | (n,)  |
| mu     | the metric without the luck of the validation rows                                   | (n,)  |
| s, rho | spread of mu over trials, and its correlation with g: a hypothesis                   | (H,)  |
| tau    | what the loss leaves open of mu, s sqrt(1 - rho^2)                                   | (H,)  |
| w      | weight of the reported metric, tau^2 / (tau^2 + e^2)                                 | (H, n)|

Under a hypothesis mu = a + s rho g + tau r, r ~ N(0, 1), and m ~ N(mu, e^2). Nothing is known of `a` beforehand; log s
and rho are uniform on a grid. Then

    E[mu] = w m + (1 - w)(a + s rho g),   Var[mu] = w e^2,

and the hypotheses count by their likelihood. Where the metric is exact w is 1; where its differences are within its
errors w is small, and the loss puts trials in order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from .targets import Warp

LOSS = "validation_loss"
"""The name under which trials report their validation loss."""

# rho is not negative: a loss that does not tell the metric says nothing, and not the opposite.
_CORRELATIONS = np.linspace(0.0, 0.95, 8)
_SPREADS = 20
# The smallest spread, in errors: it is told from none by nobody. The largest, in differences seen.
_LEAST, _MOST = 0.05, 4.0


@dataclass(frozen=True)
class Judgement:
    """What trials are worth, larger is better, in the metric's units.

    Attributes:
        merit: E[mu], `(n,)`.
        noise: what the metric's error does to `merit`, standard deviations `(n,)`.
        weights: probabilities of the hypotheses, `(H,)`.
        means, variances: of mu under each of them, `(H, n)`.
    """

    merit: np.ndarray
    noise: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    def chance(self, first: int, second: int) -> float | None:
        """Probability that the first of two trials is the better one; None where no error is known."""
        gaps = self.means[:, first] - self.means[:, second]
        spreads = np.sqrt(self.variances[:, first] + self.variances[:, second])
        if not (spreads > 0).all():
            return None
        return float(self.weights @ [NormalDist().cdf(z) for z in gaps / spreads])


def loss_of(result: Mapping[str, object]) -> float | None:
    """The validation loss that a trial reported: inf where it diverged or is not finite, None where there is none."""
    if result.get("diverged"):
        return math.inf
    if LOSS not in result:
        return None
    value = result[LOSS]
    return float(value) if isinstance(value, int | float | np.number) and math.isfinite(value) else math.inf


def judge(values: np.ndarray, errors: np.ndarray, losses: np.ndarray) -> Judgement:
    """The metric of trials as far as it and their losses tell it.

    Values stand as they are where fewer than two losses are known, and where the metric is exact: no trial has an
    error, and values differ. A trial whose loss is not finite is worth no more than the poorest of the others.

    Args:
        values: larger is better, finite, `(n,)`.
        errors: standard errors, `(n,)`; 0 where none is known. Beside trials that have one, 0 is that of a figure at
            the end of its range (no row right, or all), which the smallest of the others stands in for.
        losses: `(n,)`; NaN where not known, inf where not finite.
    """
    whole = ~np.isposinf(losses)
    m, e = values[whole], errors[whole]
    flat = len(m) > 0 and np.ptp(m) == 0.0
    if np.isfinite(losses).sum() < 2 or not (flat or (e > 0).any()):
        return Judgement(values, errors, np.ones(1), values[None], np.square(errors)[None])
    # Without any error the unit is free: equal values have no scale.
    e = np.where(e > 0, e, e[e > 0].min() if (e > 0).any() else 1.0)
    found = _posterior(m, e, *_goodness(losses[whole]))
    merit = np.minimum(values, found.merit.min())
    noise = np.zeros(len(values))
    merit[whole], noise[whole] = found.merit, found.noise
    means = np.tile(merit, (len(found.weights), 1))
    variances = np.zeros(means.shape)
    means[:, whole], variances[:, whole] = found.means, found.variances
    return Judgement(merit, noise, found.weights, means, variances)


def _goodness(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g, 0 where the loss is not known, and whether it is; both `(n,)`."""
    known = np.isfinite(losses)
    better = -losses[known]
    better = Warp.of(better)(better)
    g = np.zeros(len(losses))
    g[known] = (better - better.mean()) / (float(better.std()) or 1.0)
    return g, known


def _posterior(m: np.ndarray, e: np.ndarray, g: np.ndarray, known: np.ndarray) -> Judgement:
    """mu of trials with errors, `(n,)` each; where a loss is not known, all of s is open."""
    error = float(np.median(e))
    spreads = np.geomspace(_LEAST * error, _MOST * max(float(np.ptp(m)), error), _SPREADS)
    s, rho = (axis.reshape(-1, 1) for axis in np.meshgrid(spreads, _CORRELATIONS))
    open_var = np.square(s) * (1.0 - np.square(rho) * known)  # tau^2, (H, n)
    precision = 1.0 / (open_var + np.square(e))
    total = precision.sum(1, keepdims=True)
    linked = s * rho * g
    linked = linked + (precision * (m - linked)).sum(1, keepdims=True) / total
    # The likelihood with `a` integrated out.
    log_p = 0.5 * (np.log(precision).sum(1) - (precision * np.square(m - linked)).sum(1) - np.log(total[:, 0]))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    w = open_var * precision
    means = w * m + (1.0 - w) * linked
    # All trials answer the same rows, so that a part of e is common to them: m differs by no more than it scatters.
    noise = (p @ w) * np.minimum(e, m.std())
    return Judgement(p @ means, noise, p, means, w * np.square(e))
