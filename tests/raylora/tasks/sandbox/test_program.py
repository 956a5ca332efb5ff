from __future__ import annotations

from raylora.tasks.sandbox import Limits, Program


def test_names_that_the_tests_use_are_the_programs() -> None:
    names, modules = Program("", "root = Node(1)\nassert depth(root) == 1").wanted()
    assert {"Node", "depth"} <= set(names)
    assert modules == []


def test_built_in_functions_stay_the_tests_own() -> None:
    assert Program("", "assert set(f(1)) == {1}").wanted()[0] == ["f"]


def test_a_built_in_name_is_the_programs_where_it_is_the_entry_point() -> None:
    assert Program("", "assert sum(10, 15) == 6", entry_point="sum").wanted()[0] == ["sum"]


def test_library_modules_are_the_tests_own() -> None:
    assert Program("", "assert math.isclose(f(1), 1)").wanted() == (["f"], ["math"])


def test_a_function_named_like_a_module_is_the_programs() -> None:
    assert Program("", "assert calendar(2020) == 1").wanted() == (["calendar"], [])


def test_the_clock_leaves_a_busy_machine_time() -> None:
    assert Limits(timeout_s=2).deadline_s == 15
    assert Limits(timeout_s=2, wall_s=3).deadline_s == 3
