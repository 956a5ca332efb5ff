"""Gaussian process on encoded knobs: the maths of the `gp` and `latent` searchers.

| symbol | meaning                                                          | shape  |
|--------|------------------------------------------------------------------|--------|
| x      | encoded configuration, see `MixedEncoding` and `Space.features`  | (n, d) |
| k      | kernel, fitted by `fit_mixed` or `fit_latent`                    | (n, n) |
| y      | targets, larger is better, standardised over the observations    | (n,)   |
| noise  | variance of y around the objective                               | ()     |

All tensors are float64 on the CPU. Models are made anew for every suggestion, so nothing but the observations has to be
saved.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor, nn

from ..space import NEUTRAL, Space

# Rows of candidates predicted at a time; bounds the memory of (rows x observations) matrices.
_ROWS = 8192


class MixedEncoding:
    """Encoding for a mixed kernel: a column in [0, 1] per ordinal knob, a category number per categorical one.

    Knobs with one value are left out: wherever they are active they say nothing. An inactive ordinal knob is at 0.5, an
    inactive categorical one has a category of its own.

    Args:
        space: the space whose indices are encoded.

    Attributes:
        ordinal, categorical: the columns of either kind.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.places = [j for j, knob in enumerate(space.knobs) if len(knob) > 1]
        kinds = [space.knobs[j].kind for j in self.places]
        self.ordinal = [c for c, kind in enumerate(kinds) if kind == "ordinal"]
        self.categorical = [c for c, kind in enumerate(kinds) if kind == "categorical"]

    def __call__(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """`(n, d)` float64, d the number of knobs with more than one value."""
        digits = self.space.digits(indices)
        x = np.zeros((len(digits), len(self.places)))
        for column, j in enumerate(self.places):
            knob = self.space.knobs[j]
            table = knob.coordinates()[:, 0] if knob.kind == "ordinal" else np.arange(len(knob), dtype=float)
            # Digit -1, inactive, is the last entry.
            x[:, column] = np.append(table, NEUTRAL if knob.kind == "ordinal" else len(knob))[digits[:, j]]
        return torch.from_numpy(x)


@dataclass
class Surrogate:
    """A fitted Gaussian process: what `posterior` needs of it.

    Args:
        kernel: gpytorch kernel over the encoded rows.
        mean: constant prior mean, standardised.
        noise: noise variance, standardised.
        features: applied to the rows before the kernel.
    """

    kernel: Any
    mean: Tensor
    noise: Tensor
    features: Any = None

    def posterior(self, x: Tensor, y: Tensor, at: Tensor, pending: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
        """Prediction of the noise-free objective.

        Args:
            x, y: observations, `(n, d)` and `(n,)`.
            at: rows to predict, `(c, d)`.
            pending: rows believed to come out at their posterior mean (kriging believer; Ginsbourger et al., 2010),
                `(p, d)`.

        Returns:
            Means and variances, `(c,)` each, and the incumbent: the best observed or believed value.
        """
        with torch.no_grad():
            if len(pending):
                believed, _ = self._predict(x, y, pending)
                x, y = torch.cat([x, pending]), torch.cat([y, believed])
            parts = [self._predict(x, y, rows) for rows in at.split(_ROWS)]
        mean, var = (torch.cat(list(part)).numpy() for part in zip(*parts, strict=True))
        return mean, var, float(y.max())

    def leave_one_out(self, x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Each observation as predicted from the others, at these hyperparameters.

        With A = K + noise I (Rasmussen and Williams, "Gaussian processes for machine learning", 2006, equation 5.12):

            predicted_i = y_i - [A^-1 (y - mean)]_i / [A^-1]_ii,    variance_i = 1 / [A^-1]_ii.

        Returns:
            Predictions and standard deviations, `(n,)` each.
        """
        with torch.no_grad():
            z = x if self.features is None else self.features(x)
            covariance = self.kernel(z).to_dense() + (self.noise + 1e-8) * torch.eye(len(y), dtype=torch.float64)
            inverse = torch.linalg.inv(covariance)
            predicted = y - (inverse @ (y - self.mean)) / inverse.diagonal()
            spread = inverse.diagonal().clamp_min(1e-12).rsqrt()
        return predicted.numpy(), spread.numpy()

    def _predict(self, x: Tensor, y: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        z, z_at = (x, at) if self.features is None else (self.features(x), self.features(at))
        factor = _factor(self.kernel(z).to_dense(), self.noise)
        cross = torch.linalg.solve_triangular(factor, self.kernel(z, z_at).to_dense(), upper=False)  # (n, c)
        residual = torch.linalg.solve_triangular(factor, (y - self.mean)[:, None], upper=False)
        mean = self.mean + (cross.T @ residual)[:, 0]
        var = self.kernel(z_at, diag=True) - cross.square().sum(dim=0)
        return mean, var.clamp_min(1e-12)


def _factor(covariance: Tensor, noise: Tensor) -> Tensor:
    """Lower Cholesky factor of covariance + noise I."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    return psd_safe_cholesky(covariance + noise * eye, jitter=1e-8, max_tries=6)


def standardise(values: Sequence[float]) -> Tensor:
    """Zero mean and unit variance, `(n,)`; equal values, which carry no scale, become zeros."""
    y = torch.as_tensor(np.asarray(values, dtype=np.float64))
    y = y - y.mean()
    std = float(y.std(unbiased=False))
    return y / std if std > 1e-12 * max(1.0, float(np.abs(values).max())) else torch.zeros_like(y)


def fit_mixed(x: Tensor, y: Tensor, encoding: MixedEncoding, steps: int) -> Surrogate:
    """BoTorch's `SingleTaskGP` with k = Matern-5/2(ordinal columns) x exp(-Hamming(categorical columns)).

    Both factors have a lengthscale per column (automatic relevance determination) under BoTorch's dimension-scaled
    log-normal prior (Hvarfner et al., "Vanilla Bayesian optimization performs great in high dimensions", ICML 2024);
    the variance is one, that of the targets. Hyperparameters maximise the marginal likelihood with their priors,
    by L-BFGS.

    Args:
        x: encoded observations, `(n, d)`, n >= 1, d >= 1.
        y: standardised targets, `(n,)`.
        encoding: made the rows of `x`.
        steps: of L-BFGS at most.
    """
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.kernels import CategoricalKernel
    from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
    from gpytorch.constraints import GreaterThan
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from gpytorch.priors import LogNormalPrior

    factors: list[Any] = []
    if encoding.ordinal:
        factors.append(
            get_covar_module_with_dim_scaled_prior(
                ard_num_dims=len(encoding.ordinal), active_dims=encoding.ordinal, use_rbf_kernel=False
            )
        )
    if encoding.categorical:
        d = len(encoding.categorical)
        factors.append(
            CategoricalKernel(
                ard_num_dims=d,
                active_dims=encoding.categorical,
                lengthscale_prior=LogNormalPrior(0.5 * math.log(d), 1.0),
                lengthscale_constraint=GreaterThan(1e-3),
            )
        )
    kernel = factors[0] if len(factors) == 1 else factors[0] * factors[1]
    with warnings.catch_warnings():
        # BoTorch warns of targets that are all equal, and of an optimizer stopped at its step limit: both are meant.
        warnings.simplefilter("ignore")
        model = SingleTaskGP(x, y[:, None], covar_module=kernel, outcome_transform=None)
        fit_gpytorch_mll(
            ExactMarginalLogLikelihood(model.likelihood, model),
            optimizer_kwargs={"options": {"maxiter": steps}},
            max_attempts=1,
        )
    model.eval()
    return Surrogate(model.covar_module, model.mean_module.constant.detach(), model.likelihood.noise.detach()[0])


class FeatureExtractor(nn.Sequential):
    """Two blocks of linear and ReLU: the map into the latent space.

    Weights are He-uniform, so that a random latent space keeps the distances' order of magnitude.
    """

    def __init__(self, inputs: int, width: int, generator: torch.Generator) -> None:
        super().__init__(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.double()
        for layer in (self[0], self[2]):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.uniform_(layer.bias, -0.1, 0.1, generator=generator)


def fit_latent(x: Tensor, y: Tensor, *, width: int, steps: int, seed: int, rate: float = 0.01) -> Surrogate:
    """Matern-5/2 on the output of a `FeatureExtractor`, all trained together by the marginal likelihood (AdamW).

    Appendix B of "Efficient hyper-parameter search for LoRA via language-aided Bayesian optimization", after Lee et
    al., "Latent Bayesian optimization via autoregressive normalizing flows", 2025, and deep kernel learning (Wilson et
    al., AISTATS 2016).

    Args:
        x: encoded observations, `(n, d)`, n >= 1.
        y: standardised targets, `(n,)`.
        width: of both blocks, and so the dimension of the latent space.
        steps: of AdamW.
        seed: of the extractor's initial weights.
        rate: learning rate of the extractor; the kernel's is five times that.
    """
    from gpytorch.constraints import Interval
    from gpytorch.kernels import MaternKernel, ScaleKernel

    extractor = FeatureExtractor(x.shape[1], width, torch.Generator().manual_seed(seed))
    matern = MaternKernel(nu=2.5, lengthscale_constraint=Interval(1e-2, 1e3))
    kernel = ScaleKernel(matern, outputscale_constraint=Interval(1e-2, 1e2)).double()
    with torch.no_grad():
        distances = torch.pdist(extractor(x))
        matern.lengthscale = float(distances.median().clamp(0.05, 500.0)) if len(distances) else 1.0
        kernel.outputscale = 1.0
    mean = nn.Parameter(torch.zeros((), dtype=torch.float64))
    log_noise = nn.Parameter(torch.tensor(math.log(0.05), dtype=torch.float64))
    optimizer = torch.optim.AdamW(
        [
            {"params": list(extractor.parameters()), "lr": rate, "weight_decay": 1e-3},
            {"params": [*kernel.parameters(), mean, log_noise], "lr": 5 * rate, "weight_decay": 0.0},
        ]
    )
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        factor = _factor(kernel(extractor(x)).to_dense(), log_noise.exp().clamp_min(1e-4))
        whitened = torch.linalg.solve_triangular(factor, (y - mean)[:, None], upper=False)
        loss = (0.5 * whitened.square().sum() + factor.diagonal().log().sum()) / len(y)
        loss.backward()
        optimizer.step()
    return Surrogate(kernel, mean.detach(), log_noise.detach().exp().clamp_min(1e-4), extractor)
