from __future__ import annotations

import mpmath
import numpy as np
import pytest

from searchers.surrogate.acquisition import log_expected_improvement, log_h, score
from searchers.surrogate.deep_kernel import Posterior


def exact_log_h(u: float) -> float:
    # Digits lost to cancellation grow with u^2: enough of them for every value tested.
    with mpmath.workdps(60 + int(abs(u)) // 2 if abs(u) < 2000 else 40):
        x = mpmath.mpf(u)
        if x < -2000:
            v = 1 / x**2
            series = v * (1 - 3 * v + 15 * v**2 - 105 * v**3)
            return float(-(x**2) / 2 - mpmath.log(2 * mpmath.pi) / 2 + mpmath.log(series))
        phi = mpmath.exp(-(x**2) / 2) / mpmath.sqrt(2 * mpmath.pi)
        return float(mpmath.log(phi + x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2))


@pytest.mark.parametrize(
    "u", [30.0, 3.0, 0.5, 0.0, -0.999, -1.0, -1.001, -5.0, -20.0, -59.9, -60.1, -300.0, -1e4, -1e7]
)
def test_log_h_matches_high_precision(u: float) -> None:
    assert log_h(np.array([u]))[0] == pytest.approx(exact_log_h(u), rel=1e-12, abs=1e-10)


def test_log_h_increases_across_its_branches() -> None:
    u = np.concatenate([np.linspace(-100, -50, 2001), np.linspace(-2, 5, 2001)])
    values = log_h(u)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()


def test_scale_and_incumbent_enter_as_in_the_formula() -> None:
    got = log_expected_improvement(np.array([0.3, -4.0]), np.array([0.25, 0.04]), best=1.0)
    expected = [np.log(0.5) + exact_log_h(-1.4), np.log(0.2) + exact_log_h(-25.0)]
    assert got == pytest.approx(expected, rel=1e-12)


def test_without_variance_the_gain_is_certain() -> None:
    got = log_expected_improvement(np.array([2.0, 0.5]), np.zeros(2), best=1.0)
    assert got.tolist() == [0.0, -np.inf]


MIXTURE = Posterior(
    weights=np.array([0.7, 0.3]),
    means=np.array([[0.2, 0.9], [-1.0, 1.5], [0.5, 0.5], [-90.0, -95.0]]),
    var=np.array([0.25, 0.04, 1.0, 0.01]),
    incumbent=0.6,
)


def expected_improvement(mean: float, var: float, best: float) -> float:
    u = (mean - best) / np.sqrt(var)
    return float(np.sqrt(var) * np.exp(exact_log_h(float(u))))


def test_the_improvement_expected_of_a_mixture_is_the_weighted_sum() -> None:
    wanted = [
        sum(w * expected_improvement(m, v, 0.6) for w, m in zip(MIXTURE.weights, means, strict=True))
        for means, v in zip(MIXTURE.means, MIXTURE.var, strict=True)
    ]
    assert score("ei", MIXTURE) == pytest.approx(wanted, rel=1e-10)
    assert score("logei", MIXTURE)[:3] == pytest.approx(np.log(wanted[:3]), rel=1e-10)


def test_far_below_the_incumbent_only_the_logarithm_tells_candidates_apart() -> None:
    far = Posterior(np.ones(1), np.array([[-90.0], [-80.0]]), np.full(2, 0.01), 0.0)
    assert score("ei", far).tolist() == [0.0, 0.0]
    low, high = score("logei", far)
    assert -np.inf < low < high


def test_a_hypothesis_without_probability_does_not_count() -> None:
    certain = Posterior(np.array([1.0, 0.0]), MIXTURE.means, MIXTURE.var, 0.6)
    alone = Posterior(np.ones(1), MIXTURE.means[:, :1], MIXTURE.var, 0.6)
    assert score("logei", certain) == pytest.approx(score("logei", alone))


def test_the_confidence_bound_is_two_deviations_of_the_mixture_above_its_mean() -> None:
    mean = 0.7 * MIXTURE.means[:, 0] + 0.3 * MIXTURE.means[:, 1]
    between = 0.7 * 0.3 * (MIXTURE.means[:, 0] - MIXTURE.means[:, 1]) ** 2
    assert score("ucb", MIXTURE) == pytest.approx(mean + 2 * np.sqrt(MIXTURE.var + between))
