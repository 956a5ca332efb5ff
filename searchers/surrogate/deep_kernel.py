"""Gaussian process on a learned projection of the language model's hidden state, and on the knobs themselves.

| symbol | meaning                                                                   | shape    |
|--------|---------------------------------------------------------------------------|----------|
| n, c   | observations, candidates                                                  |          |
| h      | hidden state at the learnable token                                       | (n, hid) |
| z      | ELU(Dropout(W (h - a) / s + b)), eq. 10; without projection (h - a) / s   | (n, m)   |
| x      | coordinates of the knobs                                                  | (n, d)   |
| k      | s_z^2 M(|z - z'| / l_z) + s_x^2 M(|(x - x') / l_x|), M Matern-5/2, eq. 2  | (n, n)   |
| M      | prior means, one column per hypothesis (see `knowledge`)                  | (n, H)   |
| pi     | probabilities of the hypotheses beforehand                                | (H,)     |
| y, e   | standardised targets and their noise variances (see `targets`)            | (n,)     |
| psi    | the learnable token                                                       | (hid,)   |

The model: hypothesis j holds with probability pi_j, and then y ~ N(M_j + mu, k + diag(e) + noise I), mu ~ N(0, MU). All
parameters (lengthscales, variances, noise, W, b, psi) maximise log sum_j pi_j N(y; ...), which with one hypothesis of
mean zero is the marginal likelihood of eq. 5. The kernel's parameters have weak log-normal priors, because thirty
observations do not settle them; `priors=False` and a fitted mean give eq. 5 itself.

a and s are mean and spread of h over a reference set: an affine map that W and b could absorb, so no other model, but
one whose Xavier start has distances of order one (hidden states of one template are nearly all alike).

Reference: "Efficient hyper-parameter search for LoRA via language-aided Bayesian optimization", section 3, appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor, nn

from .targets import Targets

MIN_NOISE = 1e-5
# Variance of the constant mean, which is integrated out.
MU = 4.0
# Hypotheses less likely than this share of the likeliest are left out of predictions.
_NEGLIGIBLE = 1e-3
_SQRT5 = math.sqrt(5.0)


@dataclass
class Inputs:
    """What is known of some configurations beforehand: `h` `(n, hid)`, `x` `(n, d)`, `means` `(n, H)`.

    Absent parts have no columns.
    """

    h: Tensor
    x: Tensor
    means: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, which: object) -> Inputs:
        return Inputs(self.h[which], self.x[which], self.means[which])

    def and_also(self, other: Inputs) -> Inputs:
        return Inputs(*(torch.cat(pair) for pair in zip(self.parts(), other.parts(), strict=True)))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.h, self.x, self.means


@dataclass
class Posterior:
    """Belief about candidates on the standardised scale, a mixture over the hypotheses.

    Attributes:
        weights: `(J,)` probabilities of the hypotheses kept. means: `(c, J)`. var: `(c,)`, the same for all.
        incumbent: the value to improve on.
    """

    weights: np.ndarray
    means: np.ndarray
    var: np.ndarray
    incumbent: float

    @property
    def mean(self) -> np.ndarray:
        """`(c,)` means of the mixture."""
        return self.means @ self.weights

    @property
    def total_var(self) -> np.ndarray:
        """`(c,)` variances of the mixture: within the hypotheses and between them."""
        return self.var + np.square(self.means - self.mean[:, None]) @ self.weights


def matern52(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 2 with unit variance and lengthscale: `(n, m), (k, m) -> (n, k)`."""
    # The small constant keeps the gradient of the root finite at distance zero.
    square = (a.square().sum(-1)[:, None] + b.square().sum(-1)[None, :] - 2.0 * a @ b.T).clamp_min(0.0)
    d = _SQRT5 * (square + 1e-12).sqrt()
    return (1.0 + d + d.square() / 3.0) * torch.exp(-d)


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


class Surrogate(nn.Module):
    """The surrogate; see the module's docstring for the model.

    Args:
        token: initial value of the learnable token, `(hidden,)`; None without the language part of the kernel.
        projection: width m of the projection; None uses standardised hidden states as they are.
        dropout: of the projection, active while fitting only.
        lengthscales: `(d,)` typical lengthscales of the coordinates; None without the knobs' part of the kernel.
        log_prior: `(H,)` log probabilities of the hypotheses.
        priors: weak priors on the kernel's parameters and an integrated constant mean; False fits all of them, and the
            mean, to the likelihood alone.
        learn_token: whether the token moves.
        seed: of the projection's initial weights.
    """

    def __init__(
        self,
        token: Tensor | None,
        *,
        projection: int | None = 32,
        dropout: float = 0.1,
        lengthscales: np.ndarray | None = None,
        log_prior: np.ndarray | None = None,
        priors: bool = True,
        learn_token: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.hidden = 0 if token is None else len(token)
        self.priors, self.learn_token = priors, learn_token
        if token is not None:
            self.token = nn.Parameter(token.clone().float(), requires_grad=learn_token)
            self.register_buffer("centre", torch.zeros(self.hidden))
            self.register_buffer("spread", torch.zeros(self.hidden))  # zeros: not set yet
        self.projection: Projection | None = None
        if self.hidden and projection:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.projection = Projection(self.hidden, projection, dropout)
        # Distances between independent unit-variance features of width m concentrate at sqrt(2 m).
        width = projection or self.hidden
        starts = {"noise": math.log(0.02)}
        if self.hidden:
            starts["length_z"] = 0.5 * math.log(2.0 * width)
            starts["scale_z"] = math.log(0.5 if lengthscales is None else 0.2)
        if lengthscales is not None:
            starts |= {"scale_x": math.log(0.5 if not self.hidden else 0.4)}
            self.register_buffer("typical_x", torch.as_tensor(np.log(lengthscales), dtype=torch.float64))
            self.length_x = nn.Parameter(torch.zeros(len(lengthscales), dtype=torch.float64))
        if not self.hidden and lengthscales is None:
            raise ValueError("surrogate: has neither hidden states nor coordinates; keep one of them")
        self._typical = starts
        self.kernel = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(value, dtype=torch.float64)) for name, value in starts.items()}
        )
        self.constant = nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=not priors)
        log_pi = np.zeros(1) if log_prior is None else np.asarray(log_prior, dtype=np.float64)
        self.register_buffer("log_pi", torch.from_numpy(log_pi.copy()), persistent=False)
        self._data: tuple[Inputs, Tensor, Tensor] | None = None
        self.eval()

    # -- features and kernel ---------------------------------------------------------------------------------------

    @property
    def calibrated(self) -> bool:
        """Whether hidden states have a reference; always so without the language part."""
        return not self.hidden or bool(self.spread.abs().sum() > 0)

    def calibrate(self, h: Tensor) -> None:
        """Fixes a and s from a reference set of hidden states, `(r, hidden)`, r >= 1."""
        self.centre.copy_(h.mean(dim=0))
        spread = h.std(dim=0, unbiased=False)
        # A feature that hardly moves is rounding: leave it small instead of blowing it up.
        self.spread.copy_(spread.clamp_min(max(float(spread.median()) * 0.1, 1e-6)))

    def features(self, h: Tensor) -> Tensor:
        """z of hidden states, `(n, m)` in float64."""
        scaled = (h - self.centre) / self.spread
        return (scaled if self.projection is None else self.projection(scaled)).double()

    def covariance(self, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
        """k between two sets of features (z, x), `(n, k)`; mu's variance included where it is integrated out."""
        total: Tensor | float = MU if self.priors else 0.0
        if self.hidden:
            length = self.kernel["length_z"].exp()
            total = total + self.kernel["scale_z"].exp() * matern52(a[0] / length, b[0] / length)
        if "scale_x" in self.kernel:
            lengths = (self.typical_x + self.length_x).exp()
            total = total + self.kernel["scale_x"].exp() * matern52(a[1] / lengths, b[1] / lengths)
        assert isinstance(total, Tensor)
        return total

    def variance(self) -> Tensor:
        """k of any point with itself, ()."""
        parts = [self.kernel[name].exp() for name in ("scale_z", "scale_x") if name in self.kernel]
        return torch.stack(parts).sum() + (MU if self.priors else 0.0)

    # -- likelihood ------------------------------------------------------------------------------------------------

    def objective(self, inputs: Inputs, y: Tensor, noise: Tensor) -> Tensor:
        """Log of the mixture's likelihood, with the priors where there are any, divided by n."""
        log_each, _, _ = self._evidence(self._featured(inputs), inputs.means, y, noise)
        total = torch.logsumexp(log_each + self.log_pi, dim=0)
        return (total + self._log_prior() if self.priors else total) / len(y)

    def _featured(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return (self.features(inputs.h) if self.hidden else inputs.h), inputs.x

    def _evidence(
        self, f: tuple[Tensor, Tensor], means: Tensor, y: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log likelihood of each hypothesis `(H,)`, lower Cholesky factor `(n, n)`, whitened residuals `(n, H)`."""
        k = self.covariance(f, f) + torch.diag(noise + self.kernel["noise"].exp() + MIN_NOISE)
        factor = psd_safe_cholesky(k, jitter=1e-8, max_tries=6)
        residual = y[:, None] - means - self.constant
        white = torch.linalg.solve_triangular(factor, residual, upper=False)
        log_det = 2.0 * factor.diagonal().log().sum()
        return -0.5 * (white.square().sum(0) + log_det + len(y) * math.log(2.0 * math.pi)), factor, white

    def _log_prior(self) -> Tensor:
        """Log-normal priors around the starting values, up to a constant."""
        spreads = {"noise": 1.0, "length_z": 0.5, "scale_z": 0.8, "scale_x": 0.8}
        total = torch.zeros((), dtype=torch.float64)
        for name, value in self.kernel.items():
            total = total - 0.5 * ((value - self._typical[name]) / spreads[name]).square()
        if "scale_x" in self.kernel:
            total = total - 0.5 * (self.length_x / 0.7).square().sum()
        return total

    # -- fitting ---------------------------------------------------------------------------------------------------

    def fit(
        self,
        inputs_at: Callable[[Tensor | None], Inputs],
        targets: Targets,
        *,
        steps: int = 60,
        seed: int = 0,
        projection_rate: float = 2e-3,
        kernel_rate: float = 0.1,
        token_rate: float = 2e-3,
        clip: float = 1.0,
        token_every: int = 6,
    ) -> list[float]:
        """Maximises the objective with AdamW, then conditions on the data.

        Args:
            inputs_at: `psi -> inputs`, differentiable in the token `(hidden,)` (None without a language part).
            targets: n >= 1.
            steps: at most this many; fitting stops early once the objective has settled.
            seed: of the dropout masks.
            token_rate: relative to the root mean square of the token.
            token_every: the language model runs, and the token moves, in every so many-th step; the rest moves in each.
                1 is the joint step of the paper, at several times the cost.

        Returns:
            The objective at every step (per observation).
        """
        y, noise = torch.from_numpy(targets.y), torch.from_numpy(targets.noise)
        token = self.token if self.hidden else None
        groups: list[dict[str, Any]] = [{"params": [*self.kernel.values()], "lr": kernel_rate, "weight_decay": 0.0}]
        if "scale_x" in self.kernel:
            groups[0]["params"].append(self.length_x)
        if not self.priors:
            groups[0]["params"].append(self.constant)
        if self.projection is not None:
            parameters = list(self.projection.parameters())
            groups.append({"params": parameters, "lr": projection_rate, "weight_decay": 1e-3})
        moves = token is not None and self.learn_token
        if moves:
            scale = float(self.token.detach().square().mean().sqrt().clamp_min(1e-3))
            groups.append({"params": [self.token], "lr": token_rate * scale, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups)
        moving = [p for group in groups for p in group["params"]]
        trace: list[float] = []
        self.train()
        with torch.no_grad():
            inputs = inputs_at(token)
        # A single observation says nothing about scales.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for step in range(steps if len(y) > 1 else 0):
                good = [p.detach().clone() for p in moving]
                optimizer.zero_grad(set_to_none=True)
                now = inputs_at(token) if moves and step % token_every == 0 else inputs
                try:
                    objective = self.objective(now, y, noise)
                    (-objective).backward()
                    fine = bool(torch.isfinite(objective)) and all(
                        bool(torch.isfinite(p.grad).all()) for p in moving if p.grad is not None
                    )
                except (NotPSDError, NanError):
                    fine = False
                if not fine:
                    # The last step went too far: keep what worked.
                    with torch.no_grad():
                        for p, old in zip(moving, good, strict=True):
                            p.copy_(old)
                    break
                nn.utils.clip_grad_norm_(moving, clip)
                optimizer.step()
                if now is not inputs:
                    inputs = Inputs(now.h.detach(), now.x, now.means)
                trace.append(float(objective.detach()))
                if len(trace) >= 30 and np.mean(trace[-5:]) - np.mean(trace[-15:-10]) < 1e-3:
                    break
        self.eval()
        with torch.no_grad():
            self.condition(inputs_at(token) if moves else inputs, targets)
        return trace

    def condition(self, inputs: Inputs, targets: Targets) -> None:
        """Takes these as the data to predict from."""
        y, noise = torch.from_numpy(targets.y), torch.from_numpy(targets.noise)
        self._data = (Inputs(inputs.h.detach(), inputs.x, inputs.means), y, noise)

    # -- prediction ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self,
        candidates: Inputs,
        fantasies: Inputs | None = None,
        values: np.ndarray | None = None,
        smooth: bool = True,
    ) -> Posterior:
        """Belief about the noise-free objective at the candidates.

        Args:
            fantasies: points taken to be observed as well; `values` are their standardised outcomes `(p,)`, NaN for
                the posterior mean (kriging believer).
            smooth: the incumbent is the largest posterior mean at an observation, which noise does not lift; False: the
                largest observed or believed value.
        """
        assert self._data is not None, "fit or condition first"
        data, y, noise = self._data
        log_each, factor, white = self._evidence(self._featured(data), data.means, y, noise)
        p = torch.softmax(log_each + self.log_pi, dim=0)
        kept = torch.nonzero(p > _NEGLIGIBLE * p.max())[:, 0]
        p = p[kept] / p[kept].sum()
        if fantasies is not None and len(fantasies):
            believed, _ = self._posterior(data, factor, white[:, kept], fantasies, kept)
            outcome = believed @ p
            if values is not None:
                given = torch.from_numpy(np.asarray(values, dtype=np.float64))
                outcome = torch.where(torch.isnan(given), outcome, given)
            data, y = data.and_also(fantasies), torch.cat([y, outcome])
            noise = torch.cat([noise, torch.zeros(len(fantasies), dtype=torch.float64)])
            log_each, factor, white = self._evidence(self._featured(data), data.means, y, noise)
            if values is not None:
                p = torch.softmax((log_each + self.log_pi)[kept], dim=0)
        mean, var = self._posterior(data, factor, white[:, kept], candidates, kept)
        if smooth:
            at_data, _ = self._posterior(data, factor, white[:, kept], data, kept)
            incumbent = float((at_data @ p).max())
        else:
            incumbent = float(y.max())
        return Posterior(p.numpy(), mean.numpy(), var.numpy(), incumbent)

    def _posterior(
        self, data: Inputs, factor: Tensor, white: Tensor, at: Inputs, kept: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means `(c, J)` and variances `(c,)`."""
        cross = self.covariance(self._featured(data), self._featured(at))  # (n, c)
        cross = torch.linalg.solve_triangular(factor, cross, upper=False)
        mean = at.means[:, kept] + self.constant + cross.T @ white
        return mean, (self.variance() - cross.square().sum(dim=0)).clamp_min(1e-12)

    @torch.no_grad()
    def joint_covariance(self, at: Inputs) -> np.ndarray:
        """Posterior covariance of some candidates, `(c, c)`, given the observations."""
        assert self._data is not None, "fit or condition first"
        data, y, noise = self._data
        _, factor, _ = self._evidence(self._featured(data), data.means, y, noise)
        f = self._featured(at)
        cross = torch.linalg.solve_triangular(factor, self.covariance(self._featured(data), f), upper=False)
        return (self.covariance(f, f) - cross.T @ cross).numpy()

    # -- state -----------------------------------------------------------------------------------------------------

    def export(self) -> dict[str, np.ndarray]:
        """All parameters as numpy arrays."""
        return {k: v.detach().cpu().numpy().copy() for k, v in self.state_dict().items()}

    def load(self, state: dict[str, Any], kernel: bool = True) -> None:
        """Inverse of `export`; `kernel=False` takes over the token and its reference only.

        Raises:
            ValueError: the arrays belong to a surrogate of another shape.
        """
        own = self.state_dict()
        if state.keys() != own.keys() or any(tuple(state[k].shape) != tuple(own[k].shape) for k in own):
            raise ValueError("surrogate state: was made with another language model or kernel; start afresh")
        kept = state if kernel else {k: state[k] for k in ("token", "centre", "spread") if k in state}
        self.load_state_dict({**own, **{k: torch.as_tensor(np.array(v)) for k, v in kept.items()}})
