from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raylora.errors import UserError
from raylora.tasks.code import mbpp
from raylora.tasks.sandbox import Sandbox, available

Published = Callable[[str, str], list[dict[str, Any]]]
needs_sandbox = pytest.mark.skipif(available().kind is None, reason="no sandbox can be had here")

ROW: dict[str, Any] = {
    "task_id": 7,
    "text": "Write a function to sum a list.",
    "code": "def total(xs):\r\n    return sum(xs)",
    "test_setup_code": "XS = [1, 2]",
    "test_list": ["assert total(XS) == 3", "assert set([total([])]) == {0}"],
    "challenge_test_list": ["assert total([-1]) == -1"],
}
QUESTION = (
    "You are an expert Python programmer, and here is your task: Write a function to sum a list. Your code should "
    "pass these tests:\n\nassert total(XS) == 3\nassert set([total([])]) == {0}\n[BEGIN]\n"
)


def test_the_prompt_is_the_published_one() -> None:
    assert mbpp.prompt(ROW) == QUESTION
    assert mbpp.prompt(ROW, [ROW]) == QUESTION + "def total(xs):\n    return sum(xs)\n[DONE]\n\n" + QUESTION


def test_the_function_under_test_is_the_one_that_is_called() -> None:
    assert mbpp.tested_names(ROW["test_list"]) == ["total"]
    assert mbpp.tested_names(["assert sum(10, 15) == 6"]) == ["sum"]
    assert mbpp.tested_names(["assert set(f([Pair(1, 2)])) == {1}"])[0] == "f"


def test_assertions_that_are_no_python_are_named() -> None:
    with pytest.raises(UserError, match=r"test_list: 'assert f\(1\) = 2' is not Python"):
        mbpp.tested_names(["assert f(1) = 2"])


def test_assertions_that_call_nothing_are_named() -> None:
    with pytest.raises(UserError, match="call no function"):
        mbpp.tested_names(["assert True"])


def test_the_tests_that_evalplus_adds_come_after_the_published_ones() -> None:
    plus = mbpp.reference({**ROW, "test": "assert total([5]) == 5"}).tests
    assert plus.splitlines()[-2:] == [ROW["test_list"][1], "assert total([5]) == 5"]


@needs_sandbox
def test_answers_are_scored() -> None:
    answers = [
        "def total(xs):\n    return sum(xs)\n[DONE]",
        "```python\ndef total(xs):\n    return sum(xs)\n```",
        "def total(xs):\n    return 3\n[DONE]",
        "def set(xs): return {0}\ndef total(xs): return 3",
        "",
    ]
    outcomes = Sandbox().run_tests([mbpp.program(ROW, answer) for answer in answers])
    assert [outcome.passed for outcome in outcomes] == [True, True, False, False, False]


@needs_sandbox
def test_challenge_assertions_count_where_asked_for() -> None:
    answer = "def total(xs):\n    return abs(sum(xs))\n"
    tried = [mbpp.program(ROW, answer), mbpp.program(ROW, answer, challenge=True)]
    assert [outcome.passed for outcome in Sandbox().run_tests(tried)] == [True, False]


@needs_sandbox
def test_reference_solutions_pass(published: Published) -> None:
    found = published("mbpp", "test")[::33] or [ROW]
    outcomes = Sandbox().run_tests([mbpp.reference(row) for row in found])
    assert [row["task_id"] for row, o in zip(found, outcomes, strict=True) if not o.passed] == []


@needs_sandbox
@pytest.mark.real
def test_every_reference_solution_passes(published: Published) -> None:
    found = [row for split in ("prompt", "test", "validation", "train") for row in published("mbpp", split)]
    if not found:
        pytest.skip("the published rows are not here")
    tried = [mbpp.program(row, f"[BEGIN]\n{row['code']}\n[DONE]", challenge=True) for row in found]
    # MBPP/123 sums divisors up to 9999 in one loop within another: 6 s of processor time or more.
    outcomes = Sandbox().run_tests(tried)
    assert [program.name for program, o in zip(tried, outcomes, strict=True) if not o.passed] == []
    assert len(outcomes) == 974
