from __future__ import annotations

import json
import pickle

import pytest

from raylora.errors import UserError
from raylora.metrics.pass_at_k import PassAtK
from raylora.tasks.code.check import Check
from raylora.tasks.sandbox import available

needs_sandbox = pytest.mark.skipif(available().kind is None, reason="no sandbox can be had here")
HUMANEVAL = {
    "prompt": "def add(a, b):\n    '''Adds.'''\n",
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MBPP = {"test_list": ["assert add(1, 2) == 3"]}


@needs_sandbox
@pytest.mark.parametrize(("form", "fields"), [("humaneval", HUMANEVAL), ("mbpp", MBPP)])
def test_completions_are_checked_against_their_rows(form: str, fields: dict[str, object]) -> None:
    check = pickle.loads(pickle.dumps(Check(form)))
    row = {"metadata": json.dumps(fields)}
    answers = ["def add(a, b):\n    return a + b", "def add(a, b):\n    return 0"]
    assert check(answers, [row, row]) == [True, False]


@needs_sandbox
def test_pass_at_k_runs_programs_in_the_sandbox() -> None:
    metric = PassAtK(k=[1, 2])
    metric.use(Check("humaneval"))
    scores = metric.score([["    return a + b", "    return 0"]], [{"metadata": json.dumps(HUMANEVAL)}])
    assert scores == [(0.5, 1.0)]


def test_a_row_without_tests_is_named() -> None:
    with pytest.raises(UserError, match="a row of humaneval without entry_point, test"):
        Check("humaneval")(["x"], [{"metadata": json.dumps({"prompt": "def f():\n"})}])


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UserError, match="'apps' is no form of code tests"):
        Check("apps")
