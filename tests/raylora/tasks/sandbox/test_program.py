from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor

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


def test_several_threads_read_programs_at_once() -> None:
    """Python 3.11 mixes up the depths of trees that two threads make, where one is interrupted, as by this."""

    def interrupt(*_: object) -> None:
        time.sleep(0.0001)

    program, before = Program("", "assert f([(1, {2: [3]})]) == [0, {1: [2]}]\n" * 5), gc.get_threshold()
    gc.callbacks.append(interrupt)
    gc.set_threshold(50, 1000, 1000)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda _: program.wanted(), range(20))) == [(["f"], [])] * 20
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(interrupt)


def test_the_clock_leaves_a_busy_machine_time() -> None:
    assert Limits(timeout_s=2).deadline_s == 15
    assert Limits(timeout_s=2, wall_s=3).deadline_s == 3
