from __future__ import annotations

import pytest
from sklearn.metrics import accuracy_score

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.accuracy import Accuracy
from raylora.metrics.testing import MetricConformance, row, text_case

NLI = ["entailment", "not entailment"]


class TestAccuracy(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Accuracy(labels=["yes", "no"])

    @pytest.fixture
    def case(self):
        return text_case(right=["Yes.", "I say no"], wrong=["no", "yes or no"], answers=["yes", "no"])


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("It is not entailment.", "not entailment", True),
        ("It is not entailment.", "entailment", False),
        ("entailment or not entailment", "entailment", False),
        ("neither", "entailment", False),
        ("", "entailment", False),
    ],
)
def test_a_completion_means_the_one_label_that_it_names(completion, answer, right):
    assert Accuracy(labels=NLI).score([completion], [row(answer)]) == [float(right)]


def test_without_labels_the_completion_is_the_label():
    assert Accuracy().score(["yes", "yes, sir"], [row("yes")] * 2) == [1.0, 0.0]


def test_it_agrees_with_scikit_learn(labelled):
    answers, predicted = labelled
    metric = Accuracy()
    values = metric.score(predicted, [row(answer) for answer in answers])
    assert metric.summarise(values).value == pytest.approx(accuracy_score(answers, predicted))


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "A."], "ab", 3])
def test_labels_must_differ(labels):
    with pytest.raises(UserError, match=r"accuracy\.labels: "):
        make_metric("accuracy", {"labels": labels})
