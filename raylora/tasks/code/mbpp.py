"""MBPP (Austin et al., 2021, arXiv:2108.07732): short functions from a sentence and three assertions."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping, Sequence
from typing import Any

from raylora.errors import UserError
from raylora.tasks.code.answer import extract_program
from raylora.tasks.sandbox import Program
from raylora.tasks.sandbox.program import parse

# Where the published prompt has a model end its code.
STOP = ("[DONE]",)
# The published three examples, by task_id, from the split `prompt`.
SHOTS = (2, 3, 4)


def prompt(row: Mapping[str, object], shots: Sequence[Mapping[str, object]] = ()) -> str:
    """The published prompt: `shots` with their code, then the row up to `[BEGIN]`."""
    parts = [f"{_question(shot)}{_lines(shot['code'])}\n[DONE]\n\n" for shot in shots]
    return "".join(parts) + _question(row)


def _question(row: Mapping[str, Any]) -> str:
    text = str(row.get("text") or row.get("prompt"))
    tests = "\n".join(map(_lines, row["test_list"]))
    return (
        f"You are an expert Python programmer, and here is your task: {text} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def _lines(text: object) -> str:
    return str(text).replace("\r\n", "\n")


def tested_names(tests: Sequence[str]) -> list[str]:
    """What the assertions call by name, the outermost call of the first one first.

    A built-in name counts only where nothing else is called: one task asks for a function called `sum`.

    Raises:
        UserError: an assertion that is no Python, or tests that call nothing.
    """
    names: list[str] = []
    for test in tests:
        try:
            tree = parse(_lines(test))
        except SyntaxError as error:
            raise UserError.at(
                "test_list", f"{test[:60]!r} is not Python ({error.msg}); mend or drop the row", value=test
            ) from error
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names += [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    own = [name for name in names if not hasattr(builtins, name)] or names
    if not own:
        raise UserError.at(
            "test_list", f"the tests call no function ({list(tests)!r:.60}); mend or drop the row", value=list(tests)
        )
    return list(dict.fromkeys(own))


def program(row: Mapping[str, Any], answer: str, *, challenge: bool = False) -> Program:
    """The answer with the row's assertions, for the sandbox.

    Args:
        row: `test_list`, and where there are any `test_setup_code` (or `test_imports`, as in the sanitised
            form), `challenge_test_list`, EvalPlus' `test`, `task_id`.
        answer: code between `[BEGIN]` and `[DONE]`, between fences, or bare.
        challenge: run the harder assertions too.
    """
    names = tested_names(row["test_list"])
    return _assemble(row, extract_program(answer, names=names), names[0], challenge)


def reference(row: Mapping[str, Any], *, challenge: bool = False) -> Program:
    """The row's own solution with its assertions."""
    return _assemble(row, _lines(row["code"]), tested_names(row["test_list"])[0], challenge)


def _assemble(row: Mapping[str, Any], code: str, name: str, challenge: bool) -> Program:
    imports = [str(line) for line in _given(row, "test_imports")]
    setup = str(row.get("test_setup_code") or "")
    more = _given(row, "challenge_test_list") if challenge else []
    plus = str(row.get("test") or "")
    tests = "\n".join(map(_lines, [*imports, setup, *row["test_list"], *more, plus]))
    return Program(code=code, tests=tests + "\n", entry_point=name, name=f"MBPP/{row.get('task_id', name)}")


def _given(row: Mapping[str, Any], field: str) -> list[object]:
    # A Parquet file gives an array, whose truth value is undefined.
    value = row.get(field)
    return [] if value is None else list(value)
