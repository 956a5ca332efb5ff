from __future__ import annotations

import numpy as np
import pytest

from raylora.metrics.statistics import bootstrap_error, standard_error


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
