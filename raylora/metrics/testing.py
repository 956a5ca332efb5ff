"""Conformance suite that every metric passes: subclass `MetricConformance` and override two fixtures.

Example::

    class TestMyMetric(MetricConformance):
        @pytest.fixture
        def metric(self):
            return MyMetric()

        @pytest.fixture
        def case(self):
            return text_case(right=["Paris", "4"], wrong=["Rome", "5"], answers=["Paris", "4"])
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from raylora.metrics.base import Estimate, Metric, OptionScores, RowLoss, options_of

ODD_TEXTS = (
    "",
    " \n\t",
    "nan",
    "-inf",
    "1e999",
    "NaN %s {} \\frac{",
    "\x00\ufffd\u202e",
    "🦙" * 50,
    "(" * 200,
    "word " * 500,
)


@dataclass(frozen=True)
class Case:
    """Rows with outputs of which the metric must think well and badly, `(n,)` each; n at least 2."""

    rows: Sequence[dict[str, Any]]
    right: Sequence[Any]
    wrong: Sequence[object]


def row(answer: str, response: str | None = None, prompt: str = "?", metadata: str = "{}") -> dict[str, Any]:
    """A row as the data pipeline hands it over."""
    return {
        "prompt": prompt,
        "response": answer if response is None else response,
        "answer": answer,
        "metadata": metadata,
    }


def text_case(right: Sequence[object], wrong: Sequence[object], answers: Sequence[str]) -> Case:
    """A case of rows that consist of their answers."""
    return Case([row(answer) for answer in answers], right, wrong)


def assert_equal(first: Estimate, second: Estimate) -> None:
    """Both estimates agree to 1e-9, NaN with NaN, None with None, and so do their parts."""
    for one, other in ((first.value, second.value), (first.error, second.error)):
        if one is None or other is None:
            assert one is other
        else:
            assert one == pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True)
    assert first.parts.keys() == second.parts.keys()
    for name, part in first.parts.items():
        assert_equal(part, second.parts[name])


class MetricConformance:
    """Tests of the common contract; see the module's docstring."""

    @pytest.fixture
    def metric(self) -> Metric:
        """The metric under test."""
        raise NotImplementedError("override the fixture `metric`")

    @pytest.fixture
    def case(self) -> Case:
        """What it must think well and badly of."""
        raise NotImplementedError("override the fixture `case`")

    def estimate(self, metric: Metric, outputs: Sequence[object], rows: Sequence[Mapping[str, object]]) -> Estimate:
        return metric.summarise(metric.score(outputs, rows))

    def test_it_describes_itself(self, metric: Metric) -> None:
        assert metric.name and metric.summary and "\n" not in metric.summary
        assert metric.reported.isprintable() and " " not in metric.reported
        assert metric.mode in {"max", "min"} and math.isfinite(metric.worst)
        assert metric.needs in {"text", "samples", "loss", "options"} and metric.samples >= 1

    def test_its_options_are_keywords(self, metric: Metric) -> None:
        kinds = {parameter.kind for parameter in options_of(type(metric)).values()}
        assert kinds <= {next(iter(kinds)).KEYWORD_ONLY} if kinds else True

    def test_right_outputs_are_worth_more_than_wrong_ones(self, metric: Metric, case: Case) -> None:
        good = self.estimate(metric, case.right, case.rows).value
        bad = self.estimate(metric, case.wrong, case.rows).value
        assert good > bad if metric.mode == "max" else good < bad

    def test_nothing_is_worth_less_than_a_diverged_trial(self, metric: Metric, case: Case) -> None:
        bad = self.estimate(metric, case.wrong, case.rows).value
        assert bad >= metric.worst if metric.mode == "max" else bad <= metric.worst

    def test_there_is_one_value_per_row(self, metric: Metric, case: Case) -> None:
        assert len(metric.score(case.right, case.rows)) == len(case.rows)

    def test_the_error_is_finite_and_not_negative(self, metric: Metric, case: Case) -> None:
        estimate = self.estimate(metric, case.right, case.rows)
        assert estimate.error is not None and math.isfinite(estimate.error) and estimate.error >= 0

    def test_values_scored_in_parts_are_the_same(self, metric: Metric, case: Case) -> None:
        rows = case.rows
        parts = [*metric.score(case.right[:1], rows[:1]), *metric.score(case.right[1:], rows[1:])]
        assert_equal(metric.summarise(parts), self.estimate(metric, case.right, rows))

    def test_the_order_of_the_rows_does_not_matter(self, metric: Metric, case: Case) -> None:
        values = [*metric.score(case.right, case.rows), *metric.score(case.wrong, case.rows)]
        assert_equal(metric.summarise(values), metric.summarise(values[::-1]))

    def test_no_rows_have_no_value(self, metric: Metric) -> None:
        estimate = self.estimate(metric, [], [])
        assert math.isnan(estimate.value) and estimate.error is None

    def test_one_row_has_no_error(self, metric: Metric, case: Case) -> None:
        estimate = self.estimate(metric, case.right[:1], case.rows[:1])
        assert math.isfinite(estimate.value) and estimate.error is None

    def test_one_output_too_few_is_refused(self, metric: Metric, case: Case) -> None:
        with pytest.raises(ValueError, match=r"give one completion per row"):
            metric.score(case.right[:-1], case.rows)

    def test_odd_outputs_have_a_finite_value(self, metric: Metric, case: Case) -> None:
        for odd in self.odd_outputs(metric, case):
            estimate = self.estimate(metric, [odd, *case.right[1:]], case.rows)
            assert math.isfinite(estimate.value)
            assert estimate.value >= metric.worst if metric.mode == "max" else estimate.value <= metric.worst

    def odd_outputs(self, metric: Metric, case: Case) -> list[object]:
        if metric.needs == "text":
            return list(ODD_TEXTS)
        if metric.needs == "samples":
            return [[text] * len(case.right[0]) for text in ODD_TEXTS]
        if metric.needs == "loss":
            return [RowLoss(math.nan, 3), RowLoss(math.inf, 3), RowLoss(0.0, 0), RowLoss(1e9, 1)]
        count = len(case.right[0].log_likelihoods)
        return [OptionScores((bad,) * count, (1,) * count) for bad in (math.nan, -math.inf, math.inf, 0.0)]

    def test_it_pickles(self, metric: Metric, case: Case) -> None:
        copy = pickle.loads(pickle.dumps(metric))
        assert_equal(self.estimate(copy, case.wrong, case.rows), self.estimate(metric, case.wrong, case.rows))
