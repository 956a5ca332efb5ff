from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from searchers.surrogate.deep_kernel import MIN_NOISE, MU, Inputs, Posterior, Surrogate, matern52
from searchers.surrogate.targets import Targets, Warp, make_targets

HIDDEN, COORDINATES = 12, 2
LENGTHS = np.array([0.7, 1.5])
LOG_PRIOR = np.log([0.2, 0.5, 0.3])


def inputs(seed: int = 0, n: int = 30, hypotheses: int = 3) -> Inputs:
    """Configurations whose first hidden coordinate carries the objective."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n, HIDDEN, generator=generator)
    x = torch.rand(n, COORDINATES, generator=generator).double()
    means = torch.randn(n, hypotheses, generator=generator).double()
    return Inputs(h, x, means)


def objective(data: Inputs) -> np.ndarray:
    return np.sin(1.5 * data.h[:, 0].numpy().astype(np.float64))


def targets_of(values: np.ndarray, errors: float | np.ndarray = 0.0) -> Targets:
    return make_targets(values, np.broadcast_to(errors, values.shape), warp=False)


def make(data: Inputs, moved: bool = True, **options: Any) -> Surrogate:
    """A calibrated surrogate of both parts, away from its start if `moved`."""
    options = {"projection": 8, "lengthscales": LENGTHS, "log_prior": LOG_PRIOR, **options}
    model = Surrogate(torch.full((HIDDEN,), 0.1), **options)
    model.calibrate(data.h)
    if moved:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for p in [*model.kernel.values(), model.constant]:
                p += 0.3 * torch.randn((), generator=generator).double()
            if "scale_x" in model.kernel:
                model.length_x += 0.3 * torch.randn(len(model.length_x), generator=generator).double()
    return model


def bare(data: Inputs, **options: Any) -> Surrogate:
    """One hypothesis of mean zero and nothing but the likelihood."""
    return make(data, log_prior=None, priors=False, **options)


def one_mean(data: Inputs) -> Inputs:
    return Inputs(data.h, data.x, torch.zeros(len(data), 1, dtype=torch.float64))


# -- independent, dense ------------------------------------------------------------------------------------------------


def matern(gaps: Tensor) -> Tensor:
    d = math.sqrt(5.0) * gaps
    return (1 + d + d**2 / 3) * torch.exp(-d)


def dense_kernel(model: Surrogate, a: Inputs, b: Inputs) -> Tensor:
    total = torch.zeros(len(a), len(b), dtype=torch.float64)
    state = {k: v.detach() for k, v in model.state_dict().items()}
    if model.hidden:
        z = [(i.h - state["centre"]) / state["spread"] for i in (a, b)]
        if model.projection is not None:
            weight, bias = state["projection.linear.weight"], state["projection.linear.bias"]
            z = [torch.nn.functional.elu(one @ weight.T + bias) for one in z]
        gaps = torch.cdist(z[0].double(), z[1].double(), compute_mode="donot_use_mm_for_euclid_dist")
        total += state["kernel.scale_z"].exp() * matern(gaps / state["kernel.length_z"].exp())
    if "kernel.scale_x" in state:
        lengths = torch.from_numpy(LENGTHS) * state["length_x"].exp()
        gaps = torch.cdist(a.x / lengths, b.x / lengths, compute_mode="donot_use_mm_for_euclid_dist")
        total += state["kernel.scale_x"].exp() * matern(gaps)
    return total + (MU if model.priors else 0.0)


def dense_noisy(model: Surrogate, data: Inputs, noise: Tensor) -> Tensor:
    floor = model.kernel["noise"].detach().exp() + MIN_NOISE
    return dense_kernel(model, data, data) + torch.diag(noise + floor)


def dense_evidence(model: Surrogate, data: Inputs, y: Tensor, noise: Tensor) -> Tensor:
    """Log likelihood of each hypothesis."""
    covariance = dense_noisy(model, data, noise)
    return torch.stack(
        [
            MultivariateNormal(data.means[:, j] + model.constant.detach(), covariance).log_prob(y)
            for j in range(data.means.shape[1])
        ]
    )


def dense_posterior(model: Surrogate, data: Inputs, targets: Targets, at: Inputs, j: int) -> tuple[Tensor, Tensor]:
    """Textbook mean and covariance under one hypothesis."""
    y, noise = torch.from_numpy(targets.y), torch.from_numpy(targets.noise)
    inverse = torch.linalg.inv(dense_noisy(model, data, noise))
    cross, constant = dense_kernel(model, at, data), model.constant.detach()
    mean = at.means[:, j] + constant + cross @ inverse @ (y - data.means[:, j] - constant)
    return mean, dense_kernel(model, at, at) - cross @ inverse @ cross.T


# -- likelihood --------------------------------------------------------------------------------------------------------

PARTS: dict[str, dict[str, Any]] = {
    "both": {},
    "without projection": {"projection": None},
    "hidden states only": {"lengthscales": None},
}


@pytest.mark.parametrize("options", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("moved", [False, True])
def test_the_objective_is_the_log_of_the_mixture_with_the_priors(options: dict[str, Any], moved: bool) -> None:
    data = inputs()
    model = make(data, moved, **options)
    y, noise = torch.from_numpy(objective(data)), torch.rand(30).double() * 0.1
    mixture = torch.logsumexp(dense_evidence(model, data, y, noise) + torch.from_numpy(LOG_PRIOR), dim=0)
    got = model.objective(data, y, noise) * 30 - model._log_prior()
    assert got.item() == pytest.approx(mixture.item(), rel=1e-6)
    assert (model._log_prior() < 0) == moved, "the priors are centred on the start"


def test_one_hypothesis_without_priors_is_the_marginal_likelihood() -> None:
    data = one_mean(inputs())
    model = bare(data, lengthscales=None, projection=8)
    y, noise = torch.from_numpy(objective(data)), torch.zeros(30).double()
    wanted = dense_evidence(model, data, y, noise)[0] / 30
    assert model.objective(data, y, noise).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_surrogate_of_the_knobs_alone_has_the_same_likelihood() -> None:
    data = inputs()
    data = Inputs(data.h[:, :0], data.x, data.means)
    model = Surrogate(None, lengthscales=LENGTHS, log_prior=LOG_PRIOR)
    y, noise = torch.from_numpy(np.linspace(-1, 1, 30)), torch.zeros(30).double()
    mixture = torch.logsumexp(dense_evidence(model, data, y, noise) + torch.from_numpy(LOG_PRIOR), dim=0)
    assert model.objective(data, y, noise).item() * 30 == pytest.approx(mixture.item(), rel=1e-6)


def test_the_kernel_is_the_published_matern() -> None:
    a, b = torch.randn(5, 3).double(), torch.randn(4, 3).double()
    assert torch.allclose(matern52(a, b), matern(torch.cdist(a, b)), atol=1e-8)
    assert torch.allclose(matern52(a, a).diagonal(), torch.ones(5).double(), atol=1e-8)


def test_the_constant_mean_is_integrated_out() -> None:
    data = inputs()
    model = make(data)
    low, high = (make(data)._evidence(model._featured(data), data.means, torch.from_numpy(objective(data)) + shift,
                                      torch.zeros(30).double())[0] for shift in (0.0, 1.0))  # fmt: skip
    assert (high - low).abs().max() < 1.0, "a constant hardly matters"


def test_neither_part_is_refused() -> None:
    with pytest.raises(ValueError, match="neither hidden states nor coordinates"):
        Surrogate(None)


# -- posterior ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", PARTS.values(), ids=PARTS)
def test_the_posterior_is_the_textbook_one(options: dict[str, Any]) -> None:
    data, at = one_mean(inputs()), one_mean(inputs(1, 7))
    model = bare(data, **options)
    targets = targets_of(objective(data), np.linspace(0.0, 0.3, 30))
    model.condition(data, targets)
    belief = model.predict(at)
    mean, covariance = dense_posterior(model, data, targets, at, 0)
    assert belief.weights.tolist() == [1.0]
    assert belief.mean == pytest.approx(mean.numpy(), abs=1e-6)
    assert belief.var == pytest.approx(covariance.diagonal().numpy(), abs=1e-6)
    assert belief.total_var == pytest.approx(belief.var)


def test_a_mixture_predicts_with_each_hypothesis_and_its_probability() -> None:
    data, at = inputs(), inputs(1, 7)
    data.means.mul_(0.02)
    model = make(data)
    targets = targets_of(objective(data))
    model.condition(data, targets)
    belief = model.predict(at)
    evidence = dense_evidence(model, data, torch.from_numpy(targets.y), torch.from_numpy(targets.noise))
    assert belief.weights == pytest.approx(torch.softmax(evidence + torch.from_numpy(LOG_PRIOR), 0).numpy(), rel=1e-4)
    for j in range(3):
        mean, covariance = dense_posterior(model, data, targets, at, j)
        assert belief.means[:, j] == pytest.approx(mean.numpy(), abs=1e-5)
        assert belief.var == pytest.approx(covariance.diagonal().numpy(), abs=1e-5)


def test_mean_and_variance_of_a_mixture_are_those_of_its_draws() -> None:
    belief = Posterior(np.array([0.25, 0.75]), np.array([[0.0, 4.0]]), np.array([0.5]), 0.0)
    assert belief.mean == pytest.approx([3.0])
    assert belief.total_var == pytest.approx([0.5 + 0.25 * 9 + 0.75 * 1])


def test_a_wrong_hypothesis_loses_its_probability() -> None:
    data = inputs()
    y = objective(data)
    targets = targets_of(y)
    data.means[:] = torch.from_numpy(np.stack([-targets.y, targets.y, 0 * y], axis=1))
    model = make(data, moved=False, log_prior=np.log([0.8, 0.1, 0.1]))
    model.condition(data, targets)
    at = inputs(1, 5)
    belief = model.predict(at)
    right, _ = dense_posterior(model, data, targets, at, 1)
    assert belief.weights.max() > 0.99
    assert belief.mean == pytest.approx(right.numpy(), abs=0.05)


def test_a_noisy_observation_is_believed_less() -> None:
    data = one_mean(inputs(n=10))
    values = np.zeros(10)
    values[0] = 1.0
    beliefs = []
    for error in (0.0, 2.0):
        errors = np.zeros(10)
        errors[0] = error
        model = bare(data)
        model.condition(data, targets_of(values, errors))
        beliefs.append(model.predict(data.rows([0])))
    assert beliefs[1].mean[0] < beliefs[0].mean[0] - 0.5
    assert beliefs[1].var[0] > beliefs[0].var[0]


@pytest.mark.parametrize(("smooth", "wanted"), [(True, "mean"), (False, "value")])
def test_the_incumbent_is_a_smooth_or_an_observed_value(smooth: bool, wanted: str) -> None:
    data = one_mean(inputs())
    model = bare(data)
    targets = targets_of(objective(data), 0.3)
    model.condition(data, targets)
    incumbent = model.predict(data, smooth=smooth).incumbent
    assert incumbent == pytest.approx(model.predict(data).mean.max() if wanted == "mean" else targets.y.max())


def test_the_joint_covariance_is_the_textbook_one() -> None:
    data, at = inputs(), inputs(1, 7)
    model = make(data)
    targets = targets_of(objective(data))
    model.condition(data, targets)
    got = model.joint_covariance(at)
    assert got == pytest.approx(dense_posterior(model, data, targets, at, 0)[1].numpy(), abs=1e-5)
    assert got == pytest.approx(got.T, abs=1e-9)
    assert np.linalg.eigvalsh(got).min() > -1e-9
    assert got.diagonal() == pytest.approx(model.predict(at).var, abs=1e-9)


# -- fantasies ---------------------------------------------------------------------------------------------------------


def conditioned(data: Inputs, y: np.ndarray, noise: np.ndarray) -> Surrogate:
    model = make(data)
    model.calibrate(inputs().h)
    model.condition(data, Targets(y, noise, 0.0, 1.0, Warp()))
    return model


def test_fantasies_with_values_are_observations() -> None:
    seen, more, at = inputs(n=12), inputs(1, 3), inputs(2, 6)
    for part in (seen, more, at):
        part.means.mul_(0.05)
    y, noise, values = objective(seen), np.full(12, 0.02), np.array([0.3, -0.4, 1.2])
    got = conditioned(seen, y, noise).predict(at, more, values)
    wanted = conditioned(seen.and_also(more), np.append(y, values), np.append(noise, [0.0] * 3)).predict(at)
    assert got.weights == pytest.approx(wanted.weights)
    assert got.means == pytest.approx(wanted.means) and got.var == pytest.approx(wanted.var)
    assert got.incumbent == pytest.approx(wanted.incumbent)


@pytest.mark.parametrize("values", [None, [math.nan] * 3], ids=["none", "nan"])
def test_fantasies_without_values_take_the_posterior_mean(values: list[float] | None) -> None:
    seen, more, at = (one_mean(inputs(seed, n)) for seed, n in ((0, 12), (1, 3), (2, 6)))
    model = bare(seen)
    model.condition(seen, targets_of(objective(seen)))
    before = model.predict(at)
    after = model.predict(at, more, None if values is None else np.array(values))
    believed = model.predict(at, more, model.predict(more).mean)
    assert after.means == pytest.approx(believed.means) and after.var == pytest.approx(believed.var)
    assert after.means == pytest.approx(before.means, abs=1e-8)
    assert (after.var < before.var).all()


def test_believed_points_do_not_change_the_probabilities() -> None:
    seen, more = inputs(n=12), inputs(1, 3)
    seen.means.mul_(0.1)
    model = make(seen)
    model.condition(seen, targets_of(objective(seen)))
    assert model.predict(more, more).weights == pytest.approx(model.predict(more).weights)


def test_a_fantasy_leaves_little_variance_around_it() -> None:
    seen = inputs(n=12)
    model = make(seen)
    model.condition(seen, targets_of(objective(seen)))
    at = inputs(1, 5)
    assert model.predict(at, at.rows([2])).var[2] < 0.5 * model.predict(at).var[2]


def test_no_fantasies_are_none() -> None:
    seen, at = inputs(n=12), inputs(1, 5)
    model = make(seen)
    model.condition(seen, targets_of(objective(seen)))
    assert model.predict(at, at.rows(slice(0, 0))).means == pytest.approx(model.predict(at).means)


# -- fitting -----------------------------------------------------------------------------------------------------------


def test_fitting_raises_the_objective_and_moves_every_parameter() -> None:
    data = inputs()
    model = make(data, moved=False, dropout=0.0)
    before = model.export()

    def at(token: Tensor | None) -> Inputs:
        return Inputs(data.h + 0.1 * token * data.h.flip(1), data.x, 0 * data.means)  # type: ignore[operator]

    trace = model.fit(at, targets_of(objective(data)), steps=60)
    assert trace[-1] > trace[0] + 0.05
    after = model.export()
    fixed = {"centre", "spread", "typical_x", "constant"}  # the constant is integrated out
    assert {k for k in after if np.array_equal(after[k], before[k])} == fixed


def test_without_priors_the_constant_is_fitted() -> None:
    data = one_mean(inputs())
    model = bare(data, moved=False)
    model.fit(lambda token: data, targets_of(objective(data)), steps=5)
    assert float(model.constant.detach()) != 0.0


def test_a_token_that_is_not_learned_stays() -> None:
    data = inputs()
    model = make(data, learn_token=False)
    model.fit(lambda token: data, targets_of(objective(data)), steps=5)
    assert torch.equal(model.token, torch.full((HIDDEN,), 0.1))


def test_fitting_stops_once_it_has_settled() -> None:
    data = one_mean(inputs())
    model = make(data, moved=False, log_prior=None, dropout=0.0, projection=None)
    trace = model.fit(lambda token: data, targets_of(objective(data)), steps=400)
    assert 30 <= len(trace) < 400


def test_predictions_interpolate_and_know_where_they_are_ignorant() -> None:
    data = one_mean(inputs())
    model = make(data, moved=False, log_prior=None)
    targets = targets_of(objective(data)[:25])
    model.fit(lambda token: data.rows(slice(0, 25)), targets, steps=60)
    belief = model.predict(data)
    assert np.abs(belief.mean[:25] - targets.y).mean() < 0.25
    assert belief.var[25:].mean() > belief.var[:25].mean()


@pytest.mark.parametrize("shift", [0.0, 1.5, -1.5])
def test_a_prior_mean_that_is_off_by_a_factor_of_thirty_is_corrected(shift: float) -> None:
    from searchers.space import Space
    from searchers.surrogate.knowledge import Knowledge, prior_means

    space = Space.from_dict({"learning_rate": [3e-4 * 10 ** (0.2 * k) for k in range(-11, 12)], "batch_size": 64})
    known = Knowledge(space)
    shifts, weights, log_prior = known.hypotheses()
    columns = known.columns(range(len(space)))
    u = columns[:, 0]
    means = torch.from_numpy(prior_means(columns, shifts, weights, known.learned.shape))
    data = Inputs(torch.zeros(len(u), 0), torch.from_numpy(u[:, None].copy()), means)
    model = Surrogate(None, lengthscales=np.array([0.7]), log_prior=log_prior)
    seen = list(range(0, 23, 4))
    values = 30 * np.exp(-0.5 * ((u - shift) / 0.6) ** 2)
    model.fit(lambda token: data.rows(seen), make_targets(values[seen], np.zeros(len(seen))), steps=60)
    assert abs(u[int(model.predict(data).mean.argmax())] - shift) < 0.35


def test_dropout_is_off_when_predicting_and_seeded_when_fitting() -> None:
    data = inputs()
    models = [make(data, dropout=0.5) for _ in range(2)]
    state = torch.random.get_rng_state()
    for model in models:
        model.fit(lambda token: data, targets_of(objective(data)), steps=5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    first, second, other = models[0].predict(data), models[0].predict(data), models[1].predict(data)
    assert np.array_equal(first.means, second.means) and np.array_equal(first.means, other.means)


@pytest.mark.parametrize("priors", [False, True])
@pytest.mark.parametrize("values", [[0.3], [0.3, 0.3], [1.0, 2.0], [0.0] * 6, [1e-9, 2e9], [5.0, 5.0, 5.1]], ids=str)
def test_few_and_equal_targets_give_finite_predictions(values: list[float], priors: bool) -> None:
    data = inputs()
    model = make(data, priors=priors)
    model.fit(lambda token: data.rows(slice(0, len(values))), targets_of(np.array(values)), steps=30)
    belief = model.predict(data)
    assert np.isfinite(belief.means).all() and np.isfinite(belief.incumbent)
    assert np.isfinite(belief.var).all() and (belief.var > 0).all()


def test_repeated_points_need_no_luck() -> None:
    data = one_mean(inputs()).rows([0] * 8)
    model = bare(one_mean(inputs()))
    targets = targets_of(np.arange(8.0))
    model.fit(lambda token: data, targets, steps=30)
    assert targets.reported(model.predict(data.rows([0])).mean)[0] == pytest.approx(3.5, abs=0.5)


def test_states_that_break_down_keep_the_last_good_parameters() -> None:
    data = inputs()
    model = make(data)
    calls = 0

    def at(token: Tensor | None) -> Inputs:
        nonlocal calls
        calls += 1
        h = data.h * float("nan") if calls == 4 else data.h + 0 * token  # type: ignore[operator]
        return Inputs(h, data.x, data.means)

    trace = model.fit(at, targets_of(objective(data)), steps=30, token_every=1)
    assert len(trace) == 2
    assert np.isfinite(model.predict(data).means).all()


def test_the_language_model_runs_only_when_the_token_moves() -> None:
    data = inputs()
    calls: list[int] = []

    def at(token: Tensor | None) -> Inputs:
        calls.append(1)
        return Inputs(data.h + token, data.x, data.means)  # type: ignore[operator]

    make(data).fit(at, targets_of(objective(data)), steps=12, token_every=6)
    assert len(calls) == 4  # at the start, in steps 0 and 6, and for the predictions


# -- state -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", PARTS.values(), ids=PARTS)
def test_export_and_load_are_inverse(options: dict[str, Any]) -> None:
    data = inputs()
    model = make(data, **options)
    model.fit(lambda token: data, targets_of(objective(data)), steps=5)
    other = Surrogate(
        torch.zeros(HIDDEN), **{"projection": 8, "lengthscales": LENGTHS, "log_prior": LOG_PRIOR, **options}
    )
    assert not other.calibrated
    other.load(model.export())
    assert other.calibrated
    other.condition(data, targets_of(objective(data)))
    assert np.array_equal(other.predict(data).means, model.predict(data).means)


def test_exported_arrays_are_copies() -> None:
    model = make(inputs())
    before = float(model.kernel["noise"].detach())
    model.export()["kernel.noise"][...] = 7.0
    assert float(model.kernel["noise"].detach()) == before


@pytest.mark.parametrize("options", [{"projection": 4}, {"projection": None}, {"lengthscales": None}], ids=str)
def test_a_state_of_another_shape_is_refused(options: dict[str, Any]) -> None:
    data = inputs()
    with pytest.raises(ValueError, match="surrogate state"):
        make(data, **options).load(make(data).export())


def test_loading_without_the_kernel_keeps_the_token_and_its_reference() -> None:
    data = inputs()
    model = make(data)
    with torch.no_grad():
        model.token += 1.0
        model.projection.linear.weight += 1.0  # type: ignore[union-attr]
    fresh = make(inputs(1), moved=False)
    start = fresh.export()
    fresh.load(model.export(), kernel=False)
    changed = {k for k, v in fresh.export().items() if not np.array_equal(v, start[k])}
    assert changed == {"token", "centre", "spread"}
    assert torch.equal(fresh.token, model.token)


def test_a_feature_that_hardly_moves_is_not_blown_up() -> None:
    data = inputs()
    data.h[:, 3] = 5.0 + 1e-7 * data.h[:, 3]
    model = make(data, projection=None)
    z = model.features(data.h)
    assert z[:, 3].std() < 1e-3 and z[:, 0].std() == pytest.approx(1.0, abs=0.1)
