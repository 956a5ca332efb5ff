from __future__ import annotations


def test_metrics_are_listed_for_people_and_programs(table, answer) -> None:
    assert "exact" in table("metrics")
    assert {"exact", "contains", "number"} <= {row["name"] for row in answer("metrics")}
