from __future__ import annotations

import numpy as np
import pytest

from raylora.metrics.core.bootstrap import bootstrap_error, bootstrap_error_of_sums
from raylora.statistics import standard_error


def test_of_a_mean_it_is_the_standard_error():
    values = np.random.default_rng(1).normal(size=200).tolist()
    error = bootstrap_error(values, lambda rows: sum(rows) / len(rows), resamples=4000)
    assert error == pytest.approx(standard_error(values), rel=0.05)


def test_of_sums_it_is_the_same():
    values = np.random.default_rng(1).normal(size=200).tolist()
    error = bootstrap_error_of_sums([(v, 1.0) for v in values], lambda sums: sums[:, 0] / sums[:, 1], resamples=4000)
    assert error == pytest.approx(standard_error(values), rel=0.05)


def test_the_same_rows_give_the_same_error():
    rows = list(range(20))
    assert bootstrap_error(rows, max) == bootstrap_error(rows, max)


def test_one_row_has_none():
    assert bootstrap_error([1.0], max) is None
    assert bootstrap_error_of_sums([[1.0]], lambda sums: sums[:, 0]) is None
