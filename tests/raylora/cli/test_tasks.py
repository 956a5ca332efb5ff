from __future__ import annotations


def test_tasks_are_listed_for_people_and_programs(table, answer) -> None:
    names = answer("tasks")
    assert {"gsm8k", "instruct"} <= set(names)
    assert table("tasks").splitlines() == names
