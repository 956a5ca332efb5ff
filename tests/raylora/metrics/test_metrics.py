from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.metrics import METRICS, available, make_metric


def test_every_metric_says_what_it_measures():
    assert {"exact", "contains", "number"} <= set(METRICS)
    assert all(available().values())


def test_an_unknown_metric_names_those_there_are():
    with pytest.raises(UserError, match=r"task\.metrics: unknown metric 'exakt'; choose one of .*exact"):
        make_metric("exakt")


def test_an_unknown_option_names_those_there_are():
    with pytest.raises(UserError, match=r"task\.metrics\.sign: .*number has no such option; it takes mark, tolerance"):
        make_metric("number", {"sign": "#"})


def test_the_field_that_names_a_metric_is_in_its_errors():
    with pytest.raises(UserError, match=r"task\.match: unknown metric"):
        make_metric("exakt", where="task.match")
