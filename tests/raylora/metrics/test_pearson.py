from __future__ import annotations

import random

import pytest
from scipy.stats import pearsonr

from raylora.errors import UserError
from raylora.metrics.pearson import Pearson
from raylora.metrics.testing import MetricConformance, row, text_case


class TestPearson(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Pearson()

    @pytest.fixture
    def case(self):
        return text_case(right=["1", "2.5", "4"], wrong=["4", "2", "1"], answers=["1", "3", "5"])


def value_of(answers, predicted):
    metric = Pearson()
    rows = [row(str(answer)) for answer in answers]
    return metric.summarise(metric.score([str(one) for one in predicted], rows)).value


def test_it_agrees_with_scipy():
    draw = random.Random(1)
    answers = [round(draw.uniform(0, 5), 1) for _ in range(100)]
    predicted = [round(answer + draw.gauss(0, 1), 2) for answer in answers]
    assert value_of(answers, predicted) == pytest.approx(pearsonr(answers, predicted).statistic)


def test_a_completion_without_a_number_counts_below_the_scale():
    assert value_of([1, 2, 5], ["1", "none", "5"]) == pytest.approx(pearsonr([1, 2, 5], [1, -1, 5]).statistic)


def test_a_constant_prediction_is_worth_nothing():
    assert value_of([1, 2, 5], ["3", "3", "3"]) == 0.0


def test_a_number_without_bounds_does_no_harm():
    assert -1.0 <= value_of([1, 2, 5], ["1", "9" * 300, "1e99"]) <= 1.0


def test_an_answer_that_is_no_number_is_refused():
    with pytest.raises(UserError, match=r"pearson: the answer 'high' is no number"):
        Pearson().score(["1"], [row("high")])
