from __future__ import annotations

import itertools

import pytest

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.pass_at_k import PassAtK, pass_at_k
from raylora.metrics.testing import Case, MetricConformance, row


def passes(completions, rows):
    return [text == row["answer"] for text, row in zip(completions, rows, strict=True)]


class TestPassAtK(MetricConformance):
    @pytest.fixture
    def metric(self):
        metric = PassAtK(k=[1, 2], samples=3)
        metric.use(passes)
        return metric

    @pytest.fixture
    def case(self):
        return Case([row("a"), row("b")], [["a", "x", "a"], ["b", "b", "x"]], [["x"] * 3, ["x", "x", "b"]])


@pytest.mark.parametrize(("samples", "passed", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (4, 1, 4)])
def test_it_is_the_share_of_draws_with_one_that_passes(samples, passed, k):
    draws = list(itertools.combinations(range(samples), k))
    expected = sum(any(one < passed for one in draw) for draw in draws) / len(draws)
    assert pass_at_k(samples, passed, k) == pytest.approx(expected)


def test_every_k_is_a_part_and_the_first_is_the_value():
    metric = PassAtK(k=[2, 1])
    metric.use(passes)
    estimate = metric.summarise(metric.score([["a", "x"]], [row("a")]))
    assert (estimate.value, estimate.parts["pass@1"].value, metric.samples) == (1.0, 0.5, 2)


def test_it_refuses_to_run_programs_itself():
    with pytest.raises(UserError, match=r"pass_at_k has no programs to run for this task"):
        PassAtK().score([["a"]], [row("a")])


@pytest.mark.parametrize("options", [{"k": 0}, {"k": []}, {"k": [1, 1]}, {"k": 5, "samples": 4}])
def test_numbers_that_do_not_fit_are_refused(options):
    with pytest.raises(UserError, match=r"pass_at_k\.(k|samples): "):
        make_metric("pass_at_k", options)
