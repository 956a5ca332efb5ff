"""Gaussian process on a learned projection of the language model's hidden state.

| symbol  | meaning                                             | shape     |
|---------|-----------------------------------------------------|-----------|
| h       | hidden state at the learnable token                 | (n, hid)  |
| z       | ELU(Dropout(W (h - c) / s + b)), eq. 10             | (n, m)    |
| K       | sigma^2 Matern-5/2(|z - z'| / l) + noise I, eq. 2   | (n, n)    |
| y       | targets, standardised over the observations         | (n,)      |
| psi     | the learnable token                                 | (hid,)    |

Kernel (sigma, l), constant mean, noise, W, b and psi are fitted together to the marginal log-likelihood, eq. 5 and 6 of
"Efficient hyper-parameter search for LoRA via language-aided Bayesian optimization". c and s are mean and spread
of h over a reference set, fixed at the first fit: an affine map that W and b could absorb, so no other model, but one
whose Xavier start has distances of order one (raw hidden states of one template are nearly all alike).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gpytorch
import numpy as np
import torch
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor, nn

from .knowledge import Trend

MIN_NOISE = 1e-4


class Projection(nn.Module):
    """ELU(Dropout(W x + b)), W Xavier-uniform, b zero."""

    def __init__(self, hidden: int, size: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, size)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.elu(self.dropout(self.linear(x)))


class DeepKernelGP(nn.Module):
    """The surrogate: projection, Matern-5/2 kernel with one lengthscale, constant mean, noise and learnable token.

    Args:
        token: initial value of the learnable token, `(hidden,)`.
        size: width m of the projection.
        dropout: probability, active while fitting only.
        seed: of the projection's initial weights.
        knowledge: whether hidden states come with the columns of `knowledge.Knowledge` appended; the prior mean is
            then the constant plus `knowledge.Trend` of them, whose parameters are fitted with the rest (MAP).
    """

    def __init__(
        self, token: Tensor, size: int = 32, dropout: float = 0.1, seed: int = 0, knowledge: bool = False
    ) -> None:
        super().__init__()
        hidden = self.hidden = len(token)
        self.trend = Trend() if knowledge else None
        self.token = nn.Parameter(token.clone().float())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projection = Projection(hidden, size, dropout)
        matern = gpytorch.kernels.MaternKernel(nu=2.5, lengthscale_constraint=gpytorch.constraints.Interval(1e-2, 1e3))
        self.kernel = gpytorch.kernels.ScaleKernel(
            matern, outputscale_constraint=gpytorch.constraints.Interval(1e-3, 1e3)
        )
        self.mean = gpytorch.means.ConstantMean()
        self.likelihood = gpytorch.likelihoods.GaussianLikelihood(
            noise_constraint=gpytorch.constraints.Interval(MIN_NOISE, 10.0)
        )
        # Distances between independent unit-variance features of width m concentrate at sqrt(2 m).
        matern.lengthscale = math.sqrt(2.0 * size)
        self.kernel.outputscale = 1.0
        self.likelihood.noise = 0.1
        for part in (self.kernel, self.mean, self.likelihood):
            part.double()
        self.register_buffer("centre", torch.zeros(hidden))
        self.register_buffer("spread", torch.zeros(hidden))  # zeros: not set yet
        self._y_mean, self._y_std = 0.0, 1.0
        self._h: Tensor | None = None
        self._y: Tensor | None = None
        self.eval()

    @property
    def calibrated(self) -> bool:
        """Whether `calibrate` was called, here or before the state was saved."""
        return bool(self.spread.abs().sum() > 0)

    def calibrate(self, h: Tensor) -> None:
        """Fixes c and s from a reference set of hidden states, `(r, hidden)`, r >= 1."""
        h = h[:, : self.hidden]
        self.centre.copy_(h.mean(dim=0))
        spread = h.std(dim=0, unbiased=False)
        # A feature that hardly moves is rounding: leave it small instead of blowing it up.
        self.spread.copy_(spread.clamp_min(max(float(spread.median()) * 0.1, 1e-6)))

    def features(self, h: Tensor) -> Tensor:
        """z of hidden states, `(n, m)` in float64."""
        return self.projection((h[:, : self.hidden] - self.centre) / self.spread).double()

    def prior_mean(self, h: Tensor, z: Tensor) -> Tensor:
        """Mean before any observation, standardised, `(n,)`."""
        mean = self.mean(z)
        return mean if self.trend is None else mean + self.trend(h[:, self.hidden :])

    def log_marginal_likelihood(self, h: Tensor, y: Tensor) -> Tensor:
        """Eq. 5, with the prior of the trend where there is one, divided by n, for standardised targets `y` `(n,)`."""
        z = self.features(h)
        factor = self._factor(z)
        residual = (y - self.prior_mean(h, z))[:, None]
        whitened = torch.linalg.solve_triangular(factor, residual, upper=False)
        fit = whitened.square().sum()
        log_det = 2.0 * factor.diagonal().log().sum()
        likelihood = -0.5 * (fit + log_det + len(y) * math.log(2.0 * math.pi))
        return (likelihood if self.trend is None else likelihood + self.trend.log_prior()) / len(y)

    def fit(
        self,
        hidden_states: Callable[[Tensor], Tensor],
        y: np.ndarray,
        *,
        steps: int = 60,
        seed: int = 0,
        projection_rate: float = 2e-3,
        kernel_rate: float = 5e-2,
        token_rate: float = 2e-3,
        clip: float = 1.0,
        token_every: int = 6,
    ) -> list[float]:
        """Maximises the marginal log-likelihood with AdamW, then conditions on the data.

        Args:
            hidden_states: `psi -> h`, `(hidden,) -> (n, hidden)`, differentiable.
            y: observed values, larger is better, `(n,)`, n >= 1, finite.
            steps: at most this many; fitting stops early once the objective has settled.
            seed: of the dropout masks.
            token_rate: relative to the root mean square of the token.
            token_every: the language model runs, and the token moves, in every so many-th step; kernel and projection
                move in each. 1 is the joint step of the paper, at several times the cost.

        Returns:
            The objective at every step (per observation).
        """
        values = torch.as_tensor(np.asarray(y), dtype=torch.float64)
        self._y_mean = float(values.mean())
        std = float(values.std(unbiased=False))
        # Equal targets (or one) carry no scale: leave them at zero.
        self._y_std = std if std > 1e-12 * max(1.0, abs(self._y_mean)) else 1.0
        target = (values - self._y_mean) / self._y_std

        parts: list[nn.Module] = [self.kernel, self.mean, self.likelihood]
        if self.trend is not None:
            parts.append(self.trend)
            self._place_trend(hidden_states, target)
        scale = float(self.token.detach().square().mean().sqrt().clamp_min(1e-3))
        optimizer = torch.optim.AdamW(
            [
                {"params": list(self.projection.parameters()), "lr": projection_rate, "weight_decay": 1e-3},
                {
                    "params": [p for m in parts for p in m.parameters()],
                    "lr": kernel_rate,
                    "weight_decay": 0.0,
                },
                {"params": [self.token], "lr": token_rate * scale, "weight_decay": 0.0},
            ]
        )
        trace: list[float] = []
        self.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for step in range(steps):
                with_token = step % token_every == 0
                good = {k: v.detach().clone() for k, v in self.state_dict().items()}
                optimizer.zero_grad(set_to_none=True)
                try:
                    if with_token:
                        h = hidden_states(self.token)
                    objective = self.log_marginal_likelihood(h if with_token else h.detach(), target)
                    (-objective).backward()
                except (RuntimeError, ValueError) as error:
                    if "positive" not in str(error).lower() and "nan" not in str(error).lower():
                        raise
                    self.load_state_dict(good)
                    break
                gradients = [p.grad for p in self.parameters() if p.grad is not None]
                if not torch.isfinite(objective) or not all(bool(torch.isfinite(g).all()) for g in gradients):
                    # The last step went too far: keep what worked.
                    self.load_state_dict(good)
                    break
                nn.utils.clip_grad_norm_(self.parameters(), clip)
                optimizer.step()
                trace.append(float(objective.detach()))
                if len(trace) >= 20 and np.mean(trace[-5:]) - np.mean(trace[-15:-10]) < 1e-3:
                    break
        self.eval()
        with torch.no_grad():
            self.condition(hidden_states(self.token), target)
        return trace

    def _place_trend(self, hidden_states: Callable[[Tensor], Tensor], target: Tensor) -> None:
        """Starts the trend where the objective, with the kernel as it is, is highest."""
        trend = self.trend
        assert trend is not None
        with torch.no_grad():
            h = hidden_states(self.token)

            def objective(start: tuple[float, float]) -> float:
                trend.shift.fill_(start[0])
                trend.log_weight.fill_(start[1])
                # The constant that goes best with this trend, so that starts are compared fairly.
                self.mean.constant.fill_(0.0)
                self.mean.constant.fill_(float((target - self.prior_mean(h, self.features(h))).mean()))
                return float(self.log_marginal_likelihood(h, target))

            objective(max(trend.starts(), key=objective))

    def condition(self, h: Tensor, y: Tensor) -> None:
        """Takes hidden states `(n, hidden)` and standardised targets `(n,)` as the data to predict from."""
        self._h, self._y = h.detach(), y.detach()

    def predict(self, h: Tensor, fantasies: Tensor | None = None) -> tuple[np.ndarray, np.ndarray, float]:
        """Posterior of the noise-free objective on the standardised scale.

        Args:
            h: hidden states of the candidates, `(c, hidden)`.
            fantasies: hidden states of points believed to come out at their posterior mean (kriging believer), one
                after the other, `(p, hidden)`.

        Returns:
            Means `(c,)`, variances `(c,)`, and the incumbent: the best observed or believed value.
        """
        assert self._h is not None and self._y is not None, "fit or condition first"
        with torch.no_grad():
            data, target = self._h, self._y
            for i in range(0 if fantasies is None else len(fantasies)):
                assert fantasies is not None
                believed, _ = self._posterior(data, target, fantasies[i : i + 1])
                data, target = torch.cat([data, fantasies[i : i + 1]]), torch.cat([target, believed])
            mean, var = self._posterior(data, target, h)
        return mean.numpy(), var.numpy(), float(target.max())

    def to_units(self, value: float) -> float:
        """A standardised value in the units of the targets last fitted."""
        return value * self._y_std + self._y_mean

    def export(self) -> dict[str, np.ndarray]:
        """All parameters as numpy arrays."""
        return {k: v.detach().cpu().numpy().copy() for k, v in self.state_dict().items()}

    def load(self, state: dict[str, Any], kernel: bool = True) -> None:
        """Inverse of `export`; `kernel=False` leaves kernel, mean, noise and projection as they are.

        Raises:
            ValueError: the arrays belong to a surrogate of another shape.
        """
        own = self.state_dict()
        if state.keys() != own.keys() or any(tuple(state[k].shape) != tuple(own[k].shape) for k in own):
            raise ValueError("surrogate state: was made with another language model or projection_dim; start afresh")
        kept = state if kernel else {k: state[k] for k in ("token", "centre", "spread")}
        self.load_state_dict({**own, **{k: torch.as_tensor(np.array(v)) for k, v in kept.items()}})

    def _factor(self, z: Tensor) -> Tensor:
        """Lower Cholesky factor of K; jitter grows by tenfold steps where rounding made K indefinite."""
        covariance = self.kernel(z).to_dense() + self.likelihood.noise * torch.eye(len(z), dtype=z.dtype)
        return psd_safe_cholesky(covariance, jitter=1e-8, max_tries=6)

    def _posterior(self, data: Tensor, target: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        z, x = self.features(data), self.features(h)
        factor = self._factor(z)
        cross = torch.linalg.solve_triangular(factor, self.kernel(z, x).to_dense(), upper=False)  # (n, c)
        residual = torch.linalg.solve_triangular(factor, (target - self.prior_mean(data, z))[:, None], upper=False)
        mean = self.prior_mean(h, x) + (cross.T @ residual)[:, 0]
        var = self.kernel(x, diag=True) - cross.square().sum(dim=0)
        return mean, var.clamp_min(1e-12)
