from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raylora.tasks.code import humaneval
from raylora.tasks.sandbox import Sandbox, available

Published = Callable[[str, str], list[dict[str, Any]]]
needs_sandbox = pytest.mark.skipif(available().kind is None, reason="no sandbox can be had here")

ROW = {
    "task_id": "HumanEval/x",
    "entry_point": "decode",
    "prompt": "def encode(s: str):\n    return s[::-1]\n\n\ndef decode(s: str):\n    '''Undoes encode.'''\n",
    "canonical_solution": "    return s[::-1]\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(encode('abc')) == 'abc'\n",
}


def scores(answers: list[str]) -> list[bool]:
    return [o.passed for o in Sandbox().run_tests([humaneval.program(ROW, answer) for answer in answers])]


def test_the_prompt_is_the_published_one() -> None:
    assert humaneval.prompt(ROW) == ROW["prompt"]


@needs_sandbox
def test_completions_and_whole_functions_are_scored() -> None:
    whole = "```python\ndef decode(s):\n    return s[::-1]\n```"
    answers = ["    return s[::-1]", whole, "    return s", "I do not know.", ""]
    assert scores(answers) == [True, True, False, False, False]


@needs_sandbox
def test_a_helper_of_the_prompt_cannot_be_redefined_to_please_the_tests() -> None:
    assert scores(["```python\ndef encode(s): return 'abc'\ndef decode(s): return s\n```"]) == [False]


@needs_sandbox
def test_an_answer_cannot_bring_its_own_check() -> None:
    answers = ["    return s\n\ndef check(candidate):\n    pass\n", "def decode(s): pass\ndef check(c): pass"]
    assert scores(answers) == [False, False]


PLUS = """import numpy as np

def is_floats(x) -> bool:
    return isinstance(x, float) or isinstance(x, np.ndarray)

def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp

def check(candidate):
    inputs, results = [[3.0], [4.0]], [1.5, 2.0]
    for inp, exp in zip(inputs, results):
        assertion(candidate(*inp), exp, 0)
"""


@needs_sandbox
@pytest.mark.skipif(available().kind == "wasm", reason="no numpy in WebAssembly")
def test_tests_of_evalplus_run_with_numpy() -> None:
    row = {"task_id": "HumanEval/y", "entry_point": "half", "prompt": "def half(x: float) -> float:\n", "test": PLUS}
    answers = ["    return x / 2 + 1e-9", "    return x", "    return np.nan"]
    outcomes = Sandbox().run_tests([humaneval.program(row, answer) for answer in answers])
    assert [(o.passed, o.kind) for o in outcomes] == [(True, "passed"), (False, "failed"), (False, "error")]


@needs_sandbox
def test_reference_solutions_pass(published: Published) -> None:
    found = published("humaneval", "test")[::11] or [ROW]
    outcomes = Sandbox().run_tests([humaneval.reference(row) for row in found])
    assert [row["task_id"] for row, o in zip(found, outcomes, strict=True) if not o.passed] == []


@needs_sandbox
@pytest.mark.real
def test_every_reference_solution_passes_as_a_completion(published: Published) -> None:
    found = published("humaneval", "test")
    if not found:
        pytest.skip("the published rows are not here")
    tried = [humaneval.program(row, row["canonical_solution"]) for row in found]
    outcomes = Sandbox().run_tests(tried)
    assert [program.name for program, o in zip(tried, outcomes, strict=True) if not o.passed] == []
    assert len(outcomes) == 164
