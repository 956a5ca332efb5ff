from __future__ import annotations


def test_a_plan_is_told_and_nothing_is_started(write_spec, ray_local, table, answer, tmp_path) -> None:
    spec = write_spec(budget="20m")
    told = answer("plan", spec, "--quiet")
    assert told["plan"]["estimated"] and told["plan"]["trials"] == 3 and told["rows"]["train"] > 0
    assert any("estimated, not measured" in line for line in told["lines"])
    assert not (tmp_path / "runs" / "run").exists()


def test_without_a_budget_the_spec_is_priced(write_spec, ray_local, answer) -> None:
    told = answer("plan", write_spec(), "search.trials=5", "--quiet")
    assert told["plan"]["trials"] == 5 and told["plan"]["left_s"] is None and told["plan"]["search_s"] > 0


def test_costs_are_measured_where_that_is_asked_for(write_spec, ray_local, answer) -> None:
    told = answer("plan", write_spec(budget="10m"), "--calibrate", "--quiet")
    assert not told["plan"]["estimated"] and told["cost"]["measured"] and told["cost"]["evaluation_row_s"] > 0


def test_a_mistake_is_one_line(mistake) -> None:
    assert "SPEC.yaml: missing" in mistake("plan")
    assert "budget = 'soon'" in mistake("plan", "--model", "smollm2-135m", "--data", "x", "--budget", "soon")
