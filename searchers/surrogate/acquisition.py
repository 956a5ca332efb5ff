"""What a candidate promises: expected improvement, on a logarithmic scale too, and an upper confidence bound.

The belief may be a mixture over hypotheses (`deep_kernel.Posterior`); expectations are then taken over it.

| symbol | meaning                              | shape |
|--------|--------------------------------------|-------|
| mean   | posterior mean (larger is better)    | (n,)  |
| var    | posterior variance                   | (n,)  |
| best   | incumbent value                      | ()    |
| u      | (mean - best) / sqrt(var)            | (n,)  |

EI = sigma h(u), h(u) = phi(u) + u Phi(u), so log EI = log sigma + log h(u).

Reference: Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization", NeurIPS 2023.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erfcx, logsumexp, ndtr

if TYPE_CHECKING:
    from .deep_kernel import Posterior

ACQUISITIONS = ("logei", "ei", "ucb", "thompson")
# Standard deviations of the upper confidence bound.
_BETA = 2.0

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_SQRT_HALF_PI = math.sqrt(math.pi / 2)
# Below this the bracket 1 - |u| sqrt(pi/2) erfcx(|u|/sqrt 2) loses more digits than its series has error.
_SERIES_BELOW = -60.0


def log_h(u: np.ndarray) -> np.ndarray:
    """log(phi(u) + u Phi(u)), elementwise, finite for every finite `u`; relative error of h below 1e-11."""
    u = np.asarray(u, dtype=np.float64)
    out = np.empty_like(u)

    high = u > -1.0
    x = u[high]
    out[high] = np.log(np.exp(-0.5 * x * x - _LOG_SQRT_2PI) + x * ndtr(x))

    middle = ~high & (u > _SERIES_BELOW)
    x = -u[middle]
    out[middle] = -0.5 * x * x - _LOG_SQRT_2PI + np.log1p(-x * _SQRT_HALF_PI * erfcx(x / math.sqrt(2)))

    low = u <= _SERIES_BELOW
    x = -u[low]
    # h(-x) = phi(x) (1/x^2 - 3/x^4 + 15/x^6 - 105/x^8 + ...)
    v = 1.0 / (x * x)
    tail = np.log1p(v * (-3.0 + v * (15.0 + v * (-105.0 + v * 945.0))))
    out[low] = -0.5 * x * x - _LOG_SQRT_2PI - 2.0 * np.log(x) + tail
    return out


def log_expected_improvement(mean: np.ndarray, var: np.ndarray, best: float) -> np.ndarray:
    """log EI over `best` for a maximised objective, shape `(n,)`.

    Where the variance is zero the improvement is certain: log(max(mean - best, 0)), which is -inf without one.
    """
    mean = np.asarray(mean, dtype=np.float64)
    sigma = np.sqrt(np.maximum(np.asarray(var, dtype=np.float64), 0.0))
    gain = mean - best
    out = np.full(mean.shape, -np.inf)
    spread = sigma > 0
    out[spread] = np.log(sigma[spread]) + log_h(gain[spread] / sigma[spread])
    certain = ~spread & (gain > 0)
    out[certain] = np.log(gain[certain])
    return out


def score(name: str, belief: Posterior) -> np.ndarray:
    """Scores of the candidates, `(c,)`, larger is better: `logei`, `ei` or `ucb` (mean plus two standard deviations).

    `ei` is the published choice: it underflows to 0 far from the incumbent, where `logei` still tells candidates apart.
    """
    if name == "ucb":
        return belief.mean + _BETA * np.sqrt(belief.total_var)
    var = np.broadcast_to(belief.var[:, None], belief.means.shape)
    with np.errstate(divide="ignore"):
        each = log_expected_improvement(belief.means, var, belief.incumbent) + np.log(belief.weights)
    mixed = logsumexp(each, axis=1)
    return np.exp(mixed) if name == "ei" else mixed
