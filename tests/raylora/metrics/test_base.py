from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.base import CorpusMetric, Metric, check_count, check_flag, check_lengths, mean_estimate
from raylora.metrics.base import parts_estimate as parts


class Length(Metric):
    name = "length"

    def score(self, outputs, rows) -> list[Any]:
        return [float(len(text)) for text in outputs]


class Middle(CorpusMetric):
    """The median: no mean of rows."""

    name = "middle"

    def score(self, outputs, rows) -> list[Any]:
        return [float(len(text)) for text in outputs]

    def estimator(self, rows):
        return np.array(rows), lambda table: float(np.median(table[:, 0]))


def test_a_metric_is_the_mean_of_its_rows_with_its_standard_error() -> None:
    found = Length().summarise([1.0, 2.0, 6.0])
    assert found.value == 3.0 and found.error == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))


def test_without_rows_there_is_no_value_and_for_one_no_error() -> None:
    assert math.isnan(mean_estimate([]).value) and mean_estimate([2.0]).error is None
    assert math.isnan(Middle().summarise([]).value)


def test_values_that_are_no_numbers_want_a_summary_of_their_own() -> None:
    with pytest.raises(TypeError, match="has its own `summarise`"):
        Length().summarise([("a", 1.0)])


def test_a_function_of_all_rows_does_not_depend_on_their_order() -> None:
    values = [1.0, 5.0, 2.0, 9.0, 4.0]
    found = Middle().summarise(values)
    assert found.value == 4.0 and found.error is not None and found.error > 0
    assert Middle().summarise(values[::-1]) == found


def test_figures_that_come_together_are_parts_of_the_chosen_one() -> None:
    found = parts([(1.0, 0.0), (0.0, 0.5)], ["precision", "recall"], "recall")
    assert found.value == 0.25 and {name: part.value for name, part in found.parts.items()} == {
        "precision": 0.5, "recall": 0.25,
    }  # fmt: skip


def test_a_trial_reports_the_key_or_else_the_name() -> None:
    assert Length().reported == "length" and make_metric("exact").reported == "accuracy"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("number", {"sign": "#"}, r"task\.metrics\.sign: .*number has no such option; it takes mark, tolerance"),
        ("regex", {}, r"task\.metrics\.pattern: missing; regex needs it"),
    ],
)
def test_an_option_that_is_unknown_or_missing_is_named(name, options, message) -> None:
    with pytest.raises(UserError, match=message):
        make_metric(name, options)


@pytest.mark.parametrize("value", [0, True, 1.5, "3"])
def test_a_count_is_a_whole_number(value) -> None:
    with pytest.raises(UserError, match=r"pass_at_k\.k: .* is not allowed; give a whole number of 1 or more"):
        check_count("pass_at_k", "k", value)


def test_a_flag_is_true_or_false() -> None:
    with pytest.raises(UserError, match=r"regex\.full: 1 is not allowed; give true or false"):
        check_flag("regex", "full", 1)


def test_every_output_has_its_row() -> None:
    with pytest.raises(ValueError, match="completions: 2 for 1 rows"):
        check_lengths(["a", "b"], [{}])
