from __future__ import annotations

from raylora.run.planning import plan_only
from raylora.spec import load


def test_without_a_budget_the_spec_is_priced(write_spec, ray_local) -> None:
    told = plan_only(load(write_spec(), ["search.trials=5"]), quiet=True)
    assert told["plan"]["trials"] == 5 and told["plan"]["left_s"] is None and told["plan"]["search_s"] > 0


def test_costs_are_measured_where_that_is_asked_for(write_spec, ray_local) -> None:
    told = plan_only(load(write_spec(budget="10m")), calibrate=True, quiet=True)
    assert not told["plan"]["estimated"] and told["cost"]["measured"] and told["cost"]["evaluation_row_s"] > 0
