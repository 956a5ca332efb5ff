from __future__ import annotations

import math

import gpytorch
import numpy as np
import pytest
import torch

from searchers.surrogate.deep_kernel import DeepKernelGP

HIDDEN = 12


def make(seed: int = 0, dropout: float = 0.1) -> tuple[DeepKernelGP, torch.Tensor]:
    """A model, and hidden states (30, 12) whose first coordinate carries the objective; the token shifts them."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(30, HIDDEN, generator=generator)
    model = DeepKernelGP(torch.full((HIDDEN,), 0.1), size=8, dropout=dropout, seed=seed)
    model.calibrate(h)
    return model, h


def values(h: torch.Tensor) -> np.ndarray:
    return np.sin(1.5 * h[:, 0].numpy())


def test_the_objective_is_the_marginal_likelihood_of_a_gaussian_process() -> None:
    model, h = make()
    y = torch.as_tensor(values(h))
    z = model.features(h)
    exact = model.likelihood(gpytorch.distributions.MultivariateNormal(model.mean(z), model.kernel(z))).log_prob(y)
    assert model.log_marginal_likelihood(h, y).item() * 30 == pytest.approx(exact.item(), rel=1e-6)


def test_the_kernel_is_the_published_matern() -> None:
    model, h = make()
    z = model.features(h)
    d = torch.cdist(z, z) / model.kernel.base_kernel.lengthscale
    matern = (1 + math.sqrt(5) * d + 5 * d**2 / 3) * torch.exp(-math.sqrt(5) * d)
    assert torch.allclose(model.kernel(z).to_dense(), model.kernel.outputscale * matern, atol=1e-8)


def test_fitting_raises_the_likelihood_and_moves_every_parameter() -> None:
    model, h = make(dropout=0.0)
    before = model.export()
    trace = model.fit(lambda token: h + 0.1 * token * h.flip(1), values(h), steps=60)
    assert trace[-1] > trace[0] + 0.05
    after = model.export()
    fixed = {"centre", "spread"}
    assert {k for k in after if "constraint" not in k and np.array_equal(after[k], before[k])} == fixed


def test_predictions_interpolate_and_know_where_they_are_ignorant() -> None:
    model, h = make()
    y = values(h)
    model.fit(lambda token: h[:25], y[:25], steps=60)
    mean, var, best = model.predict(h)
    error = np.abs(np.array([model.to_units(m) for m in mean]) - y)
    assert error[:25].mean() < 0.25
    assert var[25:].mean() > var[:25].mean()
    assert model.to_units(best) == pytest.approx(y[:25].max())


def test_dropout_is_off_when_predicting_and_seeded_when_fitting() -> None:
    model, h = make(dropout=0.5)
    other, _ = make(dropout=0.5)
    state = torch.random.get_rng_state()
    for m in (model, other):
        m.fit(lambda token: h, values(h), steps=5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    first, second = model.predict(h), model.predict(h)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[0], other.predict(h)[0])


@pytest.mark.parametrize("targets", [[0.3], [0.3, 0.3], [1.0, 2.0], [0.0] * 6, [1e-9, 2e9], [5.0, 5.0, 5.1]])
def test_few_and_equal_targets_give_finite_predictions(targets: list[float]) -> None:
    model, h = make()
    model.fit(lambda token: h[: len(targets)], np.array(targets), steps=30)
    mean, var, best = model.predict(h)
    assert np.isfinite(mean).all() and np.isfinite(var).all() and (var > 0).all() and np.isfinite(best)


def test_repeated_points_need_no_luck() -> None:
    model, h = make()
    model.fit(lambda token: h[:1].expand(8, -1), np.arange(8.0), steps=30)
    mean, _, _ = model.predict(h[:1])
    assert model.to_units(mean[0]) == pytest.approx(3.5, abs=0.5)


def test_states_that_break_down_keep_the_last_good_parameters() -> None:
    model, h = make()
    calls = 0

    def hidden(token: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return h * float("nan") if calls == 4 else h + 0 * token

    trace = model.fit(hidden, values(h), steps=30, token_every=1)
    assert len(trace) == 3
    assert np.isfinite(model.predict(h)[0]).all()


def test_a_believed_point_lowers_the_variance_there_and_leaves_the_means() -> None:
    model, h = make()
    model.fit(lambda token: h[:20], values(h)[:20], steps=20)
    mean, var, best = model.predict(h[20:])
    believed_mean, believed_var, believed_best = model.predict(h[20:], fantasies=h[25:27])
    assert believed_var[5] < 0.6 * var[5]
    assert (believed_var <= var + 1e-9).all()
    assert np.allclose(believed_mean, mean, atol=1e-6)
    assert believed_best >= best


def test_export_and_load_are_inverse_and_refuse_another_shape() -> None:
    model, h = make()
    model.fit(lambda token: h, values(h), steps=5)
    other = DeepKernelGP(torch.zeros(HIDDEN), size=8)
    assert not other.calibrated
    other.load(model.export())
    assert other.calibrated
    assert torch.equal(other.features(h), model.features(h))
    with pytest.raises(ValueError, match="surrogate state"):
        DeepKernelGP(torch.zeros(HIDDEN), size=4).load(model.export())


def test_the_language_model_runs_only_when_the_token_moves() -> None:
    model, h = make()
    calls = []
    model.fit(lambda token: calls.append(1) or h + token, values(h), steps=12, token_every=6)  # type: ignore[func-returns-value]
    assert len(calls) == 3  # steps 0 and 6, and once more for the prediction


def test_loading_without_the_kernel_keeps_the_token_only() -> None:
    model, h = make()
    model.fit(lambda token: h + token * h.flip(1), values(h), steps=6)
    fresh, _ = make()
    start = fresh.export()
    fresh.load(model.export(), kernel=False)
    assert torch.equal(fresh.token, model.token)
    assert np.array_equal(fresh.export()["projection.linear.weight"], start["projection.linear.weight"])
