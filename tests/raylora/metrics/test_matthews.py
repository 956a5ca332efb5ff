from __future__ import annotations

import pytest
from sklearn.metrics import matthews_corrcoef

from raylora.metrics.matthews import Matthews
from raylora.metrics.testing import MetricConformance, row, text_case


class TestMatthews(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Matthews(labels=["yes", "no"])

    @pytest.fixture
    def case(self):
        return text_case(right=["Yes.", "no"], wrong=["no", "yes"], answers=["yes", "no"])


def value_of(answers, predicted):
    metric = Matthews()
    return metric.summarise(metric.score(predicted, [row(answer) for answer in answers])).value


def test_it_agrees_with_scikit_learn(labelled):
    assert value_of(*labelled) == pytest.approx(matthews_corrcoef(*labelled))


def test_unreadable_predictions_are_a_label_of_their_own(labelled):
    answers, predicted = labelled
    predicted = ["?" if place % 5 == 0 else label for place, label in enumerate(predicted)]
    assert value_of(answers, predicted) == pytest.approx(matthews_corrcoef(answers, predicted))


def test_a_constant_prediction_is_worth_nothing():
    assert value_of(["a", "b", "b"], ["b", "b", "b"]) == 0.0
