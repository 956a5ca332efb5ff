"""Learning curves of many configurations as one Gaussian process: what will the validation loss be in the end?

Freeze-thaw Bayesian optimization (Swersky, Snoek and Adams, 2014, arXiv 1406.3896) with another kernel over time.
Trials here report at fractions of their budget that double, t = 1/16, 1/8, .., 1, and are compared at t = 1, so that
time runs in doublings: v = log2(t) + W, with v = 1 at the first report. What tells trials apart grows with them, by as
much in each as the reports say: w is v with its intervals stretched, 1 at the end.

| symbol | meaning                                                                                    | shape  |
|--------|--------------------------------------------------------------------------------------------|--------|
| x      | encoded configurations, see `encoded_gp.MixedEncoding`                                     | (c, d) |
| y      | log loss, what is above the losses of the beginning drawn in                               | (n,)   |
| i, w   | whose report it is, and when                                                               | (n,)   |
| kx     | Matern-5/2 over ordinal knobs times exp(-Hamming) over categorical ones                    | (c, c) |

With one w per report and [i = j] for reports of one trial,

    cov(y, y') =  a0^2 + a1^2 m + a2^2 w w'                           the course that all share
               +  kx(x, x') (b0^2 + b1^2 m + b2^2 w w')               what the configuration makes of it
               +  [i = j] (c0^2 + c1^2 m + c2^2 w w')  +  [same report] s^2     the trial's own way; noise

m = min(w, w'). Hyperparameters maximise the marginal likelihood under log-normal priors, in units of y's spread, and
forecasts are means over draws around that maximum (Laplace's approximation): a few trials leave them open.

A trial that diverged or failed has no loss. It counts as a report of the poorest loss that is known, or as much above
the losses of the beginning as these scatter, where it broke off and at its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from linear_operator.utils.cholesky import psd_safe_cholesky
from scipy.optimize import minimize
from torch import Tensor

# Logarithms of the prior medians of b0, b1, b2, c0, c1, c2, s, in units of y's spread, and how sure they are.
_MEDIANS = np.log([0.5, 0.3, 0.3, 0.1, 0.15, 0.15, 0.03])
_SIGMAS = np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.8])
# The shared course is all but free: it is seen from the first trials on.
_SHARED = (3.0, 1.0, 1.0)
# Of lengthscales: BoTorch's prior, which grows with the number of knobs.
_LENGTH = (math.sqrt(2.0), math.sqrt(3.0))
# Of the logarithms of what a doubling counts for.
_PACE = 1.0
# Of the hyperparameters, over which forecasts are averaged.
_DRAWS = 12
# Of L-BFGS at most.
_STEPS = 40
# Reports that the hyperparameters are fitted to; the posterior takes all.
_FIT = 250


Hyper = tuple[np.ndarray, np.ndarray]
"""The likeliest theta, `(h,)`, and a root of its covariance, `(h, h)`."""


@dataclass(frozen=True)
class Curve:
    """The reports of one trial.

    Args:
        x: its encoded configuration, `(d,)`.
        fractions: of its budget, ascending, in (0, 1].
        losses: above 0; what is not finite is left out.
        lost: whether it diverged or failed.
    """

    x: np.ndarray
    fractions: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    lost: bool = False


@dataclass(frozen=True)
class Scale:
    """From losses to y and back: y = log loss up to `knee`, then knee + spread log1p((log loss - knee) / spread)."""

    knee: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Scale:
        """The knee is at the end of what first reports are: what is above it has not learned, but lost, something."""
        logs = [[math.log(loss) for loss in _finite(curve)[1]] for curve in curves]
        first = [one[0] for one in logs if one]
        if not first:
            return cls()
        knee = float(np.median(first))
        knee += 3.0 * float(np.median(np.abs(np.array(first) - knee)))
        below = np.array([value for one in logs for value in one if value <= knee])
        return cls(knee, max(float(below.std()), 0.02))

    def warp(self, losses: np.ndarray) -> np.ndarray:
        y = np.log(losses)
        over = np.maximum(y - self.knee, 0.0)
        return np.where(over > 0, self.knee + self.spread * np.log1p(over / self.spread), y)

    def unwarp(self, y: np.ndarray) -> np.ndarray:
        """The losses of y."""
        over = np.minimum(np.maximum(np.asarray(y, dtype=float) - self.knee, 0.0) / self.spread, 20.0)
        return np.exp(np.where(over > 0, self.knee + self.spread * np.expm1(over), y))


@dataclass(frozen=True)
class Forecast:
    """Beliefs about final losses: y is normal with these means and standard deviations, `(c,)` each."""

    mean: np.ndarray
    sd: np.ndarray
    scale: Scale

    def quantile(self, p: float) -> np.ndarray:
        """Of the final loss, `(c,)`."""
        return self.scale.unwarp(self.mean + NormalDist().inv_cdf(p) * self.sd)

    @property
    def loss(self) -> np.ndarray:
        """Medians of the final losses, `(c,)`."""
        return self.scale.unwarp(self.mean)

    @property
    def error(self) -> np.ndarray:
        """Standard errors of the final losses, half of the middle 68 %, `(c,)`."""
        return (self.quantile(0.84134) - self.quantile(0.15866)) / 2


class CurveModel:
    """The process, fitted to what trials have reported.

    Args:
        curves: at least one with a report or lost.
        categorical: columns of x that hold categories.
        first: the smallest fraction at which a trial reports.
        start: hyperparameters of an earlier model of the same trials with fewer reports, to begin from.
        fit: False takes them as they are.
    """

    def __init__(
        self,
        curves: Sequence[Curve],
        categorical: Sequence[int] = (),
        first: float = 1 / 16,
        start: Hyper | None = None,
        fit: bool = True,
    ) -> None:
        self.curves, self.doublings = list(curves), 1.0 - math.log2(first)
        self.scale = Scale.of(curves)
        self.intervals = math.ceil(self.doublings)
        self.categorical = list(categorical)
        self.x = torch.from_numpy(np.stack([np.asarray(curve.x, dtype=float) for curve in curves]))
        self.ordinal = [j for j in range(self.x.shape[1]) if j not in self.categorical]
        who, w, y = self._reports()
        self.centre, self.unit = float(np.median(y)), max(float(y.std()), 1e-3)
        self.who, self.w = torch.from_numpy(who), torch.from_numpy(w)
        self.y = torch.from_numpy((y - self.centre) / self.unit)
        self.hyper = start if start is not None and not fit else self._fit(None if start is None else start[0])
        draws = np.random.default_rng(0).standard_normal((_DRAWS, len(self.hyper[0])))
        # Hyperparameters that a few trials leave open must not pass for known.
        drawn = self._within(self.hyper[0] + draws @ self.hyper[1])
        self._beliefs = [self._settle(torch.from_numpy(theta)) for theta in drawn]

    def _settle(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hyperparameters with the factor of the covariance and the weights of the reports."""
        with torch.no_grad():
            factor = _cholesky(self._covariance(theta, self.who, self.w))
            return theta, factor, torch.cholesky_solve(self.y[:, None], factor)[:, 0]

    def forecast(self, x: np.ndarray | None = None) -> Forecast:
        """Final losses of the trials, or of configurations that have not begun, `(k, d)`."""
        new = None if x is None else torch.from_numpy(np.asarray(x, dtype=float).reshape(-1, self.x.shape[1]))
        with torch.no_grad():
            found = [self._predict(new, *belief) for belief in self._beliefs]
        means, variances = (torch.stack(list(part)) for part in zip(*found, strict=True))
        mean, var = means.mean(0), variances.mean(0) + means.var(0, unbiased=False)
        return Forecast(mean.numpy() * self.unit + self.centre, var.sqrt().numpy() * self.unit, self.scale)

    def _predict(self, new: Tensor | None, theta: Tensor, factor: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances of y at the end, `(k,)` each."""
        at = self.x if new is None else new
        one = torch.ones(len(at), dtype=torch.float64)
        own = (torch.arange(len(at))[:, None] == self.who[None, :]).double() if new is None else None
        kx = self._kx(theta, at, self.x)[:, self.who]
        cross = self._cross(theta, kx, one * self.doublings, self.w, own)
        solved = torch.linalg.solve_triangular(factor, cross.T, upper=False)
        var = self._time(theta, one, one, one, one) - solved.square().sum(0)
        # What would be reported, not what lies under it.
        return cross @ weights, var.clamp_min(0.0) + (2 * theta[6]).exp()

    def _reports(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        who: list[int] = []
        when: list[float] = []
        found: list[np.ndarray] = []
        for number, curve in enumerate(self.curves):
            fractions, losses = _finite(curve)
            who += [number] * len(losses)
            when += fractions
            found.append(self.scale.warp(np.array(losses)) if losses else np.zeros(0))
        known = np.concatenate(found) if found else np.zeros(0)
        worst = max([self.scale.knee + self.scale.spread, *known.tolist()])
        values = known.tolist()
        for number, curve in enumerate(self.curves):
            if curve.lost:
                places = {1.0, curve.fractions[-1] if curve.fractions else 1.0}
                who += [number] * len(places)
                when += sorted(places)
                values += [worst] * len(places)
        w = np.maximum(np.log2(np.maximum(when, 1e-9)) + self.doublings, 0.1)
        return np.array(who), w, np.array(values)

    # -- covariance: theta = log (b0, b1, b2, c0, c1, c2, s), paces, log lengthscales ------------

    def _kx(self, theta: Tensor, x: Tensor, z: Tensor) -> Tensor:
        lengths = theta[7 + self.intervals :].exp()
        k = torch.ones(len(x), len(z), dtype=torch.float64)
        if self.ordinal:
            gap = (x[:, None, self.ordinal] - z[None, :, self.ordinal]) / lengths[self.ordinal]
            r = (5.0 * gap.square().sum(-1) + 1e-12).sqrt()
            k = k * (1 + r + r.square() / 3) * (-r).exp()
        if self.categorical:
            differs = (x[:, None, self.categorical] != z[None, :, self.categorical]).double()
            k = k * (-(differs / lengths[self.categorical]).sum(-1)).exp()
        return k

    def _time(self, theta: Tensor, kx: Tensor, w: Tensor, v: Tensor, own: Tensor | None) -> Tensor:
        """Covariances of reports at w and v, elementwise, without noise; `own` is 1 where they are of one trial."""
        b0, b1, b2, c0, c1, c2, _ = (2 * theta[:7]).exp()
        a0, a1, a2 = (a * a for a in _SHARED)
        low, product = torch.minimum(w, v), w * v
        found = a0 + a1 * low + a2 * product + kx * (b0 + b1 * low + b2 * product)
        return found if own is None else found + own * (c0 + c1 * low + c2 * product)

    def _cross(self, theta: Tensor, kx: Tensor, w: Tensor, v: Tensor, own: Tensor | None) -> Tensor:
        return self._time(theta, kx, self._pace(theta, w)[:, None], self._pace(theta, v)[None, :], own)

    def _pace(self, theta: Tensor, w: Tensor) -> Tensor:
        """phi(w): linear between whole w, 0 at 0 and 1 at the end."""
        steps = theta[7 : 7 + self.intervals].softmax(0)
        within = (w[:, None] - torch.arange(self.intervals, dtype=torch.float64)).clamp(0.0, 1.0)
        return within @ steps

    def _covariance(self, theta: Tensor, who: Tensor, w: Tensor) -> Tensor:
        kx = self._kx(theta, self.x, self.x)[who][:, who]
        own = (who[:, None] == who[None, :]).double()
        noise = (2 * theta[6]).exp() + 1e-6
        return self._cross(theta, kx, w, w, own) + noise * torch.eye(len(who), dtype=torch.float64)

    # -- hyperparameters ------------------------------------------------------------------------------------------

    def _priors(self) -> tuple[np.ndarray, np.ndarray]:
        """Medians and standard deviations of theta."""
        d = self.x.shape[1]
        medians = [_MEDIANS, np.zeros(self.intervals), np.full(d, _LENGTH[0] + 0.5 * math.log(max(d, 1)))]
        return np.concatenate(medians), np.concatenate(
            [_SIGMAS, np.full(self.intervals, _PACE), np.full(d, _LENGTH[1])]
        )

    def _within(self, theta: np.ndarray) -> np.ndarray:
        medians, sigmas = self._priors()
        return np.clip(theta, medians - 3 * sigmas, medians + 3 * sigmas)

    def _fit(self, start: np.ndarray | None) -> Hyper:
        """The likeliest theta, and a root of its covariance (Laplace's approximation), `(h, h)`."""
        medians, sigmas = self._priors()
        middle, width = torch.from_numpy(medians), torch.from_numpy(sigmas)
        # The reports of the last trials, whole trials at a time.
        kept = self.who >= (self.who.sort().values[-_FIT] if len(self.who) > _FIT else 0)
        who, w, y = self.who[kept], self.w[kept], self.y[kept]

        def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
            theta = torch.from_numpy(at).requires_grad_()
            factor = _cholesky(self._covariance(theta, who, w))
            white = torch.linalg.solve_triangular(factor, y[:, None], upper=False)
            value = 0.5 * white.square().sum() + factor.diagonal().log().sum()
            value = value + 0.5 * ((theta - middle) / width).square().sum()
            value.backward()
            assert theta.grad is not None
            return value.item(), theta.grad.numpy()

        begin = medians if start is None or len(start) != len(medians) else start
        bounds = list(zip(medians - 3 * sigmas, medians + 3 * sigmas, strict=True))
        found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
        best = np.asarray(found.x) if np.isfinite(found.fun) else medians
        step = 1e-3 * np.eye(len(best))
        slope = loss(best)[1]
        hessian = np.stack([(loss(best + one)[1] - slope) / 1e-3 for one in step])
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        # No direction is less sure than the prior has it.
        least = float((sigmas**-2).min())
        return best, vectors.T / np.sqrt(np.maximum(values, least))[:, None]


def _finite(curve: Curve) -> tuple[list[float], list[float]]:
    """The fractions and losses of the reports that say something."""
    pairs = zip(curve.fractions, curve.losses, strict=True)
    kept = [(t, loss) for t, loss in pairs if math.isfinite(loss) and loss > 0]
    return [t for t, _ in kept], [loss for _, loss in kept]


def _cholesky(covariance: Tensor) -> Tensor:
    return psd_safe_cholesky(covariance, jitter=1e-8, max_tries=6)
