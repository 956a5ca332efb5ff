from __future__ import annotations


def test_a_plan_is_told_and_nothing_is_started(write_spec, ray_local, table, answer, tmp_path) -> None:
    spec = write_spec(budget="20m")
    told = answer("plan", spec, "--quiet")
    assert told["plan"]["estimated"] and told["plan"]["trials"] == 3 and told["rows"]["train"] > 0
    assert any("estimated, not measured" in line for line in told["lines"])
    assert not (tmp_path / "runs" / "run").exists()


def test_a_mistake_is_one_line(mistake) -> None:
    assert "SPEC.yaml: missing" in mistake("plan")
    assert "budget = 'soon'" in mistake("plan", "--model", "smollm2-135m", "--data", "x", "--budget", "soon")
