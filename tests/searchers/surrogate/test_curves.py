from __future__ import annotations

import math
import time

import numpy as np
import pytest

from searchers.surrogate.curves import Curve, CurveModel, Scale

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def table(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Configurations `(count, 3)` and their losses `(count, 5)`: power laws, none of the model's own kind."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, 3))
    final = 1.2 + 2.0 * np.square(x - rng.random(3)).sum(axis=1) + 0.05 * rng.standard_normal(count)
    pace = (0.3 + 0.6 * x[:, 0]) * np.exp(0.3 * rng.standard_normal(count))
    t = np.array(FRACTIONS)
    done = (1 - (1 + 16 * t[None]) ** -pace[:, None]) / (1 - 17.0 ** -pace[:, None])
    return x, (3.0 - (3.0 - final)[:, None] * done) * np.exp(0.01 * rng.standard_normal((count, 5)))


def seen(x: np.ndarray, losses: np.ndarray, counts: np.ndarray) -> list[Curve]:
    rows = zip(x, losses, counts, strict=True)
    return [Curve(row, FRACTIONS[:n], tuple(loss[:n])) for row, loss, n in rows]


@pytest.mark.real  # seconds of a core
def test_nine_in_ten_held_back_final_losses_lie_within_the_intervals_of_nine_in_ten() -> None:
    inside, scores = [], []
    for seed in range(5):
        x, losses = table(seed, 16)
        counts = np.random.default_rng(seed).integers(1, 6, 16)
        found = CurveModel(seen(x, losses, counts)).forecast()
        held = counts < 5
        final = losses[held, 4]
        inside += ((final > found.quantile(0.05)[held]) & (final < found.quantile(0.95)[held])).tolist()
        scores += ((found.scale.warp(final) - found.mean[held]) / found.sd[held]).tolist()
    assert 0.78 <= np.mean(inside) <= 0.97, np.mean(inside)
    assert 0.7 < np.std(scores) < 1.5 and abs(np.mean(scores)) < 0.3


def test_a_forecast_draws_nearer_to_the_truth_and_surer_with_each_report() -> None:
    x, losses = table(3, 16)
    errors, spreads = [], []
    for count in (1, 3, 5):
        counts = np.array([5] * 8 + [count] * 8)
        found = CurveModel(seen(x, losses, counts)).forecast()
        errors.append(np.abs(found.loss[8:] - losses[8:, 4]).mean())
        spreads.append(found.error[8:].mean())
    assert errors[0] > errors[1] > errors[2] and spreads[0] > spreads[1] > spreads[2]


def test_of_two_equal_configurations_the_lower_curve_is_forecast_lower() -> None:
    x, losses = table(0, 10)
    curves = seen(x, losses, np.full(10, 5))
    same = np.full(3, 0.5)
    pair = [Curve(same, FRACTIONS[:3], (2.6, 2.3, 2.0)), Curve(same, FRACTIONS[:3], (2.7, 2.6, 2.5))]
    low, high = CurveModel([*curves, *pair]).forecast().loss[-2:]
    assert low < high


def test_a_trial_that_diverged_teaches_that_its_neighbourhood_is_bad() -> None:
    x, losses = table(1, 8)
    place = np.array([0.9, 0.9, 0.9])
    curves = seen(x, losses, np.full(8, 5))
    before = CurveModel(curves).forecast(place).loss[0]
    for lost in (Curve(place, lost=True), Curve(place, FRACTIONS[:1], (math.nan,), lost=True)):
        assert CurveModel([*curves, lost]).forecast(place + 0.02).loss[0] > before


@pytest.mark.parametrize("curves", [[Curve(np.zeros(2), lost=True)], [Curve(np.zeros(2), (0.25,), (2.0,))]])
def test_one_trial_is_enough_to_say_something(curves: list[Curve]) -> None:
    found = CurveModel(curves, categorical=[1]).forecast(np.ones(2))
    assert np.isfinite(found.loss).all() and (found.error > 0).all()


def test_what_is_warped_comes_back() -> None:
    scale = Scale(0.7, 0.2)
    losses = np.array([0.5, 1.0, 2.0, 4.0, 30.0])
    assert scale.unwarp(scale.warp(losses)) == pytest.approx(losses)
    assert (np.diff(scale.warp(losses)) > 0).all()


def test_a_loss_far_off_leaves_the_forecasts_of_the_others_as_they_are() -> None:
    x, losses = table(2, 12)
    counts = np.array([5] * 11 + [2])
    first = CurveModel(seen(x, losses, counts)).forecast()
    losses[0, 1:] = 500.0
    second = CurveModel(seen(x, losses, counts)).forecast()
    assert abs(second.loss[-1] - losses[-1, 4]) < abs(first.loss[-1] - losses[-1, 4]) + 0.5


@pytest.mark.real  # seconds of a core
def test_hundreds_of_reports_are_bounded_in_cost() -> None:
    x, losses = table(0, 60)
    started = time.process_time()
    CurveModel(seen(x, losses, np.full(60, 5))).forecast()
    assert time.process_time() - started < 20.0  # seconds; below 1 on a quiet core, 300 reports
