from __future__ import annotations

import random

import pytest
from scipy.stats import spearmanr

from raylora.metrics.spearman import Spearman
from raylora.metrics.testing import MetricConformance, row, text_case


class TestSpearman(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Spearman()

    @pytest.fixture
    def case(self):
        return text_case(right=["1", "2.5", "4"], wrong=["4", "2", "1"], answers=["1", "3", "5"])


def test_it_agrees_with_scipy_ties_included():
    draw = random.Random(1)
    answers = [draw.randint(0, 5) for _ in range(100)]
    predicted = [round(answer + draw.gauss(0, 1)) for answer in answers]
    metric = Spearman()
    values = metric.score([str(one) for one in predicted], [row(str(answer)) for answer in answers])
    assert metric.summarise(values).value == pytest.approx(spearmanr(answers, predicted).statistic)
