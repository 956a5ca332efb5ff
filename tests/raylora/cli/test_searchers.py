from __future__ import annotations


def test_searchers_are_listed_for_people_and_programs(table, answer) -> None:
    assert "random" in table("searchers")
    assert all(row["summary"] for row in answer("searchers"))
