from __future__ import annotations

import random

from raylora.reports.page.datasets import Knob
from raylora.reports.page.importance import importances


def knob(name: str, column: str) -> Knob:
    return Knob(name, column, [0.0, 1.0, 2.0, 3.0], True, False, ["0", "1", "2", "3"], str)


def rows(count: int) -> list[dict]:
    draw = random.Random(0)
    found = [{"k0": float(draw.randrange(4)), "k1": float(draw.randrange(4))} for _ in range(count)]
    return [{**row, "value": row["k0"] + 0.01 * row["k1"]} for row in found]


def test_the_knob_that_decides_comes_first_by_both_methods() -> None:
    found = importances(rows(40), [knob("idle", "k1"), knob("decides", "k0")], "max")
    for method in ("fANOVA", "PED-ANOVA"):
        mine = {row["knob"]: row["importance"] for row in found if row["method"] == method}
        assert mine["decides"] > 0.7 > mine["idle"]


def test_few_trials_tell_nothing() -> None:
    assert importances(rows(9), [knob("decides", "k0")], "max") == []


def test_knobs_that_some_trials_lack_are_left_out() -> None:
    some = rows(20)
    some[3]["k1"] = None
    found = importances(some, [knob("idle", "k1"), knob("decides", "k0")], "min")
    assert {row["knob"] for row in found} == {"decides"}
