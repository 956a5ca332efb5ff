"""Labels instead of text: heads by their answers, and metrics that can mark them."""

from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.tasks.labels import check_metrics, check_positive_label, default_metrics, make_head


def test_the_labels_are_the_different_answers_in_order() -> None:
    assert make_head("classifier", ["pos", "neg", "pos ", "neu"]).labels == ("neg", "neu", "pos")
    assert make_head("classifier", ["10", "9", "1.0", "1", "9"]).labels == ("1", "9", "10")
    assert make_head("classifier", ["True", "False", "True"]).labels == ("False", "True")


def test_published_labels_keep_their_order_and_published_numbers_make_a_regression() -> None:
    assert make_head("classifier", [], labels=("unacceptable", "acceptable")).labels == ("unacceptable", "acceptable")
    assert make_head("classifier", ["2.5", "5"], numeric=True).regression


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (["yes"] * 5, r"the 5 train rows have 1 different answer \('yes'\)"),
        ([f"answer {n}" for n in range(9)], r"9 train rows have 9 different answers \('answer 0', .*, \.\.\.\)"),
        ([str(n) for n in range(2000)], "more than 1000 different answers"),
        ([], "0 train rows have 0 different answers"),
    ],
)
def test_answers_that_are_no_labels_are_told_in_one_line(answers, told) -> None:
    with pytest.raises(UserError, match=told) as caught:
        make_head("classifier", answers)
    assert caught.value.field == "task.head" and "\n" not in str(caught.value)


def test_a_regression_needs_numbers() -> None:
    assert make_head("regression", ["1", "-2.5e0", " 3"]).labels == ()
    for answer in ("high", "nan", "inf", None):
        with pytest.raises(UserError, match=r"regression, but a train row has the answer .* which is no number"):
            make_head("regression", ["1", answer])
    with pytest.raises(UserError, match="the answers are negative, positive; choose classifier"):
        make_head("regression", [], labels=("negative", "positive"))


def test_a_tasks_metrics_stay_where_they_can_mark_what_the_head_says() -> None:
    glue = ({"matthews": {"labels": ["a", "b"]}}, {"accuracy": {"labels": ["a", "b"]}})
    assert default_metrics(glue, regression=False) == glue
    assert default_metrics(("pearson", "spearman"), regression=True) == ("pearson", "spearman")
    assert default_metrics(("rouge", "bleu"), regression=False) == ["accuracy"]
    assert default_metrics(("exact",), regression=True) == ["pearson", "spearman"]
    assert default_metrics((), regression=False) == ["accuracy"]


@pytest.mark.parametrize("name", ["bleu", "choice", "pass@k", "perplexity", "pearson"])
def test_metrics_that_need_more_than_a_label_are_refused(name) -> None:
    with pytest.raises(UserError, match=r"task.metrics: .* cannot mark classes.*choose among accuracy, exact, f1"):
        check_metrics([make_metric(name)], regression=False)


def test_numbers_are_marked_by_correlations_and_loss() -> None:
    check_metrics([make_metric(name) for name in ("pearson", "spearman", "loss")], regression=True)
    with pytest.raises(UserError, match="'accuracy' cannot mark numbers"):
        check_metrics([make_metric("accuracy")], regression=True)


def test_a_metric_of_a_label_that_the_head_cannot_give_is_refused() -> None:
    check_positive_label([make_metric("f1", {"positive": "Good"}), make_metric("f1")], ["bad", "good"])
    with pytest.raises(UserError, match=r"task.metrics.f1.positive: 'goot' is none .*; did you mean 'good'\?"):
        check_positive_label([make_metric("f1", {"positive": "goot"})], ["bad", "good"])
