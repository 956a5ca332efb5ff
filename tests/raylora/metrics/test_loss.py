from __future__ import annotations

import math

import pytest

from raylora.metrics.base import RowLoss
from raylora.metrics.loss import Loss
from raylora.metrics.testing import Case, MetricConformance, row


class TestLoss(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Loss()

    @pytest.fixture
    def case(self):
        return Case([row("a"), row("b")], [RowLoss(1.0, 2), RowLoss(0.5, 1)], [RowLoss(9.0, 2), RowLoss(4.0, 1)])


def test_rows_weigh_by_their_tokens():
    metric = Loss()
    assert metric.summarise(metric.score([RowLoss(2.0, 1), RowLoss(3.0, 9)], [row("")] * 2)).value == 0.5


def test_a_row_that_is_not_finite_counts_as_worst():
    metric = Loss()
    assert metric.summarise(metric.score([RowLoss(math.nan, 1), RowLoss(0.0, 1)], [row("")] * 2)).value == 10.0


def test_nothing_is_worse_than_worst():
    metric = Loss()
    assert metric.summarise(metric.score([RowLoss(1e6, 1)], [row("")])).value == metric.worst
