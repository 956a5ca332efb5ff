from __future__ import annotations

import math

import pytest

from raylora.metrics.base import RowLoss
from raylora.metrics.perplexity import Perplexity
from raylora.metrics.testing import Case, MetricConformance, row


class TestPerplexity(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Perplexity()

    @pytest.fixture
    def case(self):
        return Case([row("a"), row("b")], [RowLoss(1.0, 2), RowLoss(0.5, 1)], [RowLoss(9.0, 2), RowLoss(4.0, 1)])


def test_it_is_that_of_all_tokens_together():
    metric = Perplexity()
    estimate = metric.summarise(metric.score([RowLoss(2.0, 1), RowLoss(3.0, 9)], [row("")] * 2))
    assert estimate.value == pytest.approx(math.exp(0.5))


def test_its_error_is_that_of_the_loss_times_itself():
    losses = [RowLoss(1.0 + 0.01 * (i % 7), 1) for i in range(300)]
    metric = Perplexity()
    estimate = metric.summarise(metric.score(losses, [row("")] * 300))
    assert estimate.error == pytest.approx(estimate.value * 0.02 / math.sqrt(300), rel=0.1)
