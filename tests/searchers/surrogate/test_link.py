from __future__ import annotations

import math

import numpy as np
import pytest

from searchers.surrogate.link import judge, loss_of

LOSSES = np.array([3.1, 2.2, 5.0, 2.9, 1.8, 2.5])
NONE = np.zeros(len(LOSSES))


def simulated(follows: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True shares of right answers of 12 trials, what 48 rows say of them with its error, and losses that follow."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.1, 0.5, 12)
    seen = rng.binomial(48, truth) / 48
    losses = 2.0 - 3.0 * follows * truth + (1 - follows) * rng.normal(0, 0.4, 12)
    return truth, seen, np.sqrt(seen * (1 - seen) / 48), losses


def tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's rank correlation."""
    return float(np.mean([np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i in range(len(a)) for j in range(i)]))


@pytest.mark.parametrize(("value", "error"), [(0.0, 0.0), (0.0417, 0.029), (-2.0, 0.0)])
def test_where_the_metric_is_the_same_everywhere_the_loss_puts_trials_in_order(value: float, error: float) -> None:
    found = judge(np.full(len(LOSSES), value), np.full(len(LOSSES), error), LOSSES)
    assert np.argsort(-found.merit).tolist() == np.argsort(LOSSES).tolist()
    assert found.noise.max() < 1e-12, "equal values have shown no noise"


def test_one_row_by_luck_does_not_outweigh_a_much_better_loss() -> None:
    values, errors = NONE.copy(), NONE.copy()
    values[2], errors[2] = 1 / 48, 0.0206
    found = judge(values, errors, LOSSES)
    assert found.merit.argmax() == LOSSES.argmin() and found.noise.max() < 0.0206


def test_differences_well_above_their_errors_stand_whatever_the_loss_says() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.5, 0.6, 0.8])
    found = judge(values, np.full(6, 0.01), np.array([1.0, 2.0, 1.5, 3.0, 2.5, 4.0]))
    assert found.merit == pytest.approx(values, abs=0.01)
    assert found.noise == pytest.approx(0.01, rel=0.1)


def test_an_exact_metric_is_left_as_it_is() -> None:
    values = np.array([0.1, 0.2, 0.0, 0.5, 0.6, 0.8])
    found = judge(values, NONE, LOSSES)
    assert found.merit is values and found.noise is NONE
    assert found.chance(0, 1) is None


@pytest.mark.parametrize("losses", [[math.nan] * 6, [math.nan] * 5 + [2.0]])
def test_without_losses_the_metric_stands_with_its_errors(losses: list[float]) -> None:
    values, errors = np.linspace(0, 0.1, 6), np.full(6, 0.05)
    found = judge(values, errors, np.array(losses))
    assert found.merit is values and found.noise is errors


def test_a_loss_that_follows_the_metric_takes_the_noise_out_of_it() -> None:
    gains = []
    for seed in range(10):
        truth, seen, errors, losses = simulated(0.9, seed)
        gains.append(tau(judge(seen, errors, losses).merit, truth) - tau(seen, truth))
    assert np.mean(gains) > 0.05


def test_a_loss_that_says_nothing_does_little_harm() -> None:
    gains = []
    for seed in range(10):
        truth, seen, errors, losses = simulated(0.0, seed)
        gains.append(tau(judge(seen, errors, losses).merit, truth) - tau(seen, truth))
    assert np.mean(gains) > -0.1


@pytest.mark.parametrize("worst", [0.0, -5.0])
def test_a_trial_that_diverged_is_worth_no_more_than_the_poorest(worst: float) -> None:
    losses = np.append(LOSSES, math.inf)
    found = judge(np.append(NONE, worst), np.append(NONE, 0.0), losses)
    assert found.merit[-1] == found.merit.min() and np.isfinite(found.merit).all()


def test_a_trial_without_a_loss_is_judged_by_its_metric() -> None:
    losses = np.append(LOSSES, math.nan)
    errors = np.full(7, 0.02)
    low, high = (judge(np.append(np.full(6, 0.1), last), errors, losses).merit[-1] for last in (0.02, 0.5))
    assert low < 0.1 < 0.3 < high


def test_the_chance_to_be_better_grows_with_what_tells_trials_apart() -> None:
    flat = judge(NONE, NONE, LOSSES)
    best, second, last = np.argsort(LOSSES)[[0, 1, -1]]
    near, far = flat.chance(best, second), flat.chance(best, last)
    assert near is not None and far is not None and 0.5 < near < far < 0.95
    told = judge(np.array([0.1, 0.2, 0.0, 0.1, 0.9, 0.1]), np.full(6, 0.02), LOSSES)
    assert (told.chance(4, 1) or 0.0) > 0.999
    assert (told.chance(4, 1) or 0.0) + (told.chance(1, 4) or 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("result", "loss"),
    [
        ({"validation_loss": 1.5}, 1.5),
        ({}, None),
        ({"validation_loss": None}, math.inf),
        ({"validation_loss": math.nan}, math.inf),
        ({"validation_loss": 1.5, "diverged": True}, math.inf),
    ],
)
def test_a_loss_that_is_not_finite_is_told_from_one_that_is_not_there(result: dict, loss: float | None) -> None:
    assert loss_of(result) == loss
