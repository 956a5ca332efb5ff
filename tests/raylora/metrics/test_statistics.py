from __future__ import annotations

import numpy as np
import pytest

from raylora.metrics.statistics import bootstrap_error, bootstrap_interval, pearson, standard_error


def test_the_bootstrapped_error_of_a_mean_is_its_standard_error():
    table = np.random.default_rng(1).normal(size=(200, 1))
    error = bootstrap_error(table, lambda rows: float(rows.mean()), resamples=4000)
    assert error == pytest.approx(standard_error(table[:, 0].tolist()), rel=0.05)


def test_the_same_rows_give_the_same_bootstrapped_error():
    table = np.arange(20.0)[:, None]
    assert bootstrap_error(table, lambda rows: float(rows.max())) == bootstrap_error(
        table, lambda rows: float(rows.max())
    )


def test_one_row_has_no_bootstrapped_error():
    assert bootstrap_error(np.ones((1, 1)), lambda rows: float(rows.max())) is None


def test_the_bootstrapped_interval_of_a_mean_is_two_standard_errors_wide_on_either_side():
    table = np.random.default_rng(1).normal(size=(200, 1))
    low, high = bootstrap_interval(table, lambda rows: float(rows.mean()))
    assert (high - low) / 2 == pytest.approx(1.96 * standard_error(table[:, 0].tolist()), rel=0.1)


def test_an_interval_leaves_resamples_out_on_which_nothing_is_defined():
    table = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 4.0]])
    low, high = bootstrap_interval(table, lambda rows: pearson(rows[:, 0], rows[:, 1]))
    assert 0 < low <= high <= 1 + 1e-9
    assert bootstrap_interval(table, lambda rows: float("nan")) is None
    assert bootstrap_interval(table[:2], lambda rows: 1.0) is None
