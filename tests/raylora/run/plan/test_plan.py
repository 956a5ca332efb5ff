from __future__ import annotations

import json

import pytest

from raylora.run.plan.plan import Plan, margin
from raylora.run.plan.planner import make_plan

ROWS = {"train": 5000, "validation": 64, "source": 5600}


def test_a_plan_fills_the_spec_in(spec, cost) -> None:
    asked = spec("20m", space__rank=[4, 8])
    plan = make_plan(asked, ROWS, cost(), left_s=1150)
    filled = plan.apply(asked)
    assert filled.budget is None and filled.search.trials == plan.trials and filled.space.rank == [4, 8]
    assert filled.train.budget(10) == plan.samples and filled.final.budget(10) == plan.final_samples
    assert filled.task.validation_rows == plan.validation_rows


def test_a_plan_survives_as_plain_data(spec, cost) -> None:
    plan = make_plan(spec("20m"), ROWS, cost(), left_s=1150)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_an_estimate_says_so(spec, cost) -> None:
    plan = make_plan(spec("20m"), ROWS, cost(measured=False), left_s=1150)
    assert "estimated" in plan.lines()[0]


def test_the_margin_is_kept_back() -> None:
    assert margin(60) == 6 and margin(3600) == pytest.approx(144)
