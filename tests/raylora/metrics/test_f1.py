from __future__ import annotations

import pytest
from sklearn.metrics import f1_score

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.f1 import F1
from raylora.metrics.testing import MetricConformance, row, text_case


class TestF1(MetricConformance):
    @pytest.fixture
    def metric(self):
        return F1(positive="yes", labels=["yes", "no"])

    @pytest.fixture
    def case(self):
        return text_case(right=["Yes.", "no"], wrong=["no", "yes"], answers=["yes", "no"])


def f1_of(metric, answers, predicted):
    return metric.summarise(metric.score(predicted, [row(answer) for answer in answers]))


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_averages_agree_with_scikit_learn(labelled, average):
    answers, predicted = labelled
    assert f1_of(F1(average=average), answers, predicted).value == pytest.approx(
        f1_score(answers, predicted, average=average)
    )


def test_one_label_agrees_with_scikit_learn(labelled):
    answers, predicted = labelled
    expected = f1_score(answers, predicted, labels=["beta"], average="macro")
    assert f1_of(F1(positive="beta"), answers, predicted).value == pytest.approx(expected)


def test_unreadable_predictions_are_misses_and_no_label_of_their_own(labelled):
    answers, predicted = labelled
    predicted = ["?" if place % 5 == 0 else label for place, label in enumerate(predicted)]
    expected = f1_score(answers, predicted, labels=sorted(set(answers)), average="macro", zero_division=0)
    assert f1_of(F1(), answers, predicted).value == pytest.approx(expected)


def test_the_error_is_bootstrapped(labelled):
    estimate = f1_of(F1(), *labelled)
    assert 0.01 < estimate.error < 0.1


def test_the_positive_label_must_be_one_of_the_labels():
    with pytest.raises(UserError, match=r"f1\.positive: 'maybe' is none of the labels"):
        make_metric("f1", {"positive": "maybe", "labels": ["yes", "no"]})
