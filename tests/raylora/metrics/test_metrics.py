from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from raylora.errors import UserError
from raylora.metrics import METRICS, available, make_metric

DOCS = Path(__file__).parents[3] / "docs"


def test_every_metric_says_what_it_measures():
    assert available().keys() == set(METRICS)
    assert all(available().values())


def test_every_metric_that_the_docs_list_is_there():
    lines = (DOCS / "metrics.md").read_text(encoding="utf-8").splitlines()
    listed = {name for line in lines if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert listed == set(METRICS)


def test_pass_at_k_has_the_name_that_papers_give_it():
    assert make_metric("pass@k").name == "pass_at_k"
    assert make_metric("pass@10").key == "pass@10" and make_metric("pass@10", {"samples": 20}).samples == 20


@pytest.mark.parametrize("name", METRICS)
def test_listing_a_metric_needs_no_package_that_may_be_missing(name):
    assert not {"sacrebleu", "rouge_score", "math_verify", "langdetect"} & set(
        vars(sys.modules[METRICS[name].__module__])
    )


def test_an_unknown_metric_names_those_there_are():
    with pytest.raises(UserError, match=r"task\.metrics: unknown metric 'exakt'; did you mean 'exact'\?"):
        make_metric("exakt")


def test_the_field_that_names_a_metric_is_in_its_errors():
    with pytest.raises(UserError, match=r"task\.match: unknown metric"):
        make_metric("exakt", where="task.match")
