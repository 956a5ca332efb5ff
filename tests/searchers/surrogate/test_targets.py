from __future__ import annotations

import numpy as np
import pytest

from searchers.surrogate.targets import Warp, make_targets

VALUES = np.array([0.5, 0.62, -40.0, 0.6, 0.55, 0.61, 0.3, -1e6])
NONE = np.zeros(len(VALUES))


def test_the_warp_keeps_the_order() -> None:
    warped = Warp.of(VALUES)(VALUES)
    assert (np.argsort(warped) == np.argsort(VALUES)).all() and len(np.unique(warped)) == len(VALUES)


def test_the_warp_leaves_the_good_half_as_it_is() -> None:
    good = np.median(VALUES) <= VALUES
    assert (Warp.of(VALUES)(VALUES)[good] == VALUES[good]).all()


def test_the_warp_draws_the_bad_half_in() -> None:
    bad = np.median(VALUES) > VALUES
    assert (Warp.of(VALUES)(VALUES)[bad] > VALUES[bad]).all()
    assert make_targets(VALUES, NONE).y.min() > -3


def test_a_diverged_run_leaves_the_good_ones_apart() -> None:
    best, second = 1, 5
    warped, plain = (make_targets(VALUES, NONE, warp=w).y for w in (True, False))
    assert warped[best] - warped[second] > 100 * (plain[best] - plain[second])


def test_the_inverse_undoes_the_warp() -> None:
    warp = Warp.of(VALUES)
    asked = np.concatenate([VALUES, [-3.0, 0.57, 5.0]])
    assert warp.inverse(warp(asked)) == pytest.approx(asked)


def test_the_slope_is_the_derivative() -> None:
    warp, step = Warp.of(VALUES), 1e-6
    at = np.array([-0.3, 0.2, 0.5, 0.61])
    assert warp.slope(at) == pytest.approx((warp(at + step) - warp(at - step)) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("values", [[1.0], [1.0, -50.0], [1.0, 1.0, 1.0, -50.0]], ids=str)
def test_too_few_values_and_a_half_without_spread_are_not_warped(values: list[float]) -> None:
    warp = Warp.of(np.array(values))
    assert warp(np.array(values)).tolist() == values == warp.inverse(np.array(values)).tolist()
    assert warp.slope(np.array(values)).tolist() == [1.0] * len(values)


@pytest.mark.parametrize("warp", [False, True])
def test_targets_have_no_mean_and_unit_variance(warp: bool) -> None:
    y = make_targets(VALUES, NONE, warp=warp).y
    assert y.mean() == pytest.approx(0, abs=1e-9) and y.std() == pytest.approx(1)


@pytest.mark.parametrize("warp", [False, True])
def test_targets_go_back_to_what_was_reported(warp: bool) -> None:
    targets = make_targets(VALUES, NONE, warp=warp)
    assert targets.reported(targets.y) == pytest.approx(VALUES)


def test_errors_become_noise_in_units_of_the_targets() -> None:
    errors = np.full(4, 0.1)
    values = np.array([1.0, 2.0, 3.0, 4.0])
    plain = make_targets(values, errors, warp=False)
    assert plain.noise == pytest.approx(errors**2 / values.var())


def test_errors_are_drawn_in_like_the_values() -> None:
    targets = make_targets(VALUES, np.full(len(VALUES), 0.01))
    warp = Warp.of(VALUES)
    assert targets.noise == pytest.approx((0.01 * warp.slope(VALUES) / targets.scale) ** 2)
    assert targets.noise[VALUES.argmin()] < 1e-6 * targets.noise[VALUES.argmax()]


def test_without_errors_there_is_no_noise() -> None:
    assert (make_targets(VALUES, NONE).noise == 0).all()


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.3], [0.1 + 0.2, 0.3, 0.3], [0.0] * 5, [1e9] * 3], ids=str)
def test_equal_values_become_zeros(values: list[float]) -> None:
    targets = make_targets(np.array(values), np.zeros(len(values)))
    assert np.abs(targets.y).max() < 1e-9 and np.isfinite(targets.scale) and (targets.noise == 0).all()
    assert targets.reported(targets.y) == pytest.approx(values)


def test_equal_values_with_errors_are_measured_in_these() -> None:
    targets = make_targets(np.array([0.5, 0.5]), np.array([0.2, 0.1]))
    assert targets.y.tolist() == [0.0, 0.0] and targets.noise == pytest.approx([1.0, 0.25])
