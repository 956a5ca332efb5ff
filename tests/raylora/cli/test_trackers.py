from __future__ import annotations


def test_trackers_are_listed_for_people_and_programs(table, answer) -> None:
    assert "tracker" in table("trackers")
    assert isinstance(answer("trackers"), list)
