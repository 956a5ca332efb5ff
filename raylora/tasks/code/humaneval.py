"""HumanEval (Chen et al., 2021, arXiv:2107.03374): 164 functions to complete from signature and docstring."""

from __future__ import annotations

from collections.abc import Mapping

from raylora.tasks.code.answer import context_of, extract_program
from raylora.tasks.sandbox import Program

# Where the published evaluation stops a base model's completion.
STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def prompt(row: Mapping[str, object]) -> str:
    """The published prompt: imports, helpers, signature and docstring, as they are."""
    return str(row["prompt"])


def program(row: Mapping[str, object], answer: str) -> Program:
    """The answer with the row's tests, for the sandbox.

    Args:
        row: `prompt`, `entry_point`, `test` (which defines `check(candidate)`) and, where there is one,
            `task_id`. EvalPlus' rows have the same form.
        answer: a completion of the prompt, or a text that brings the whole function.
    """
    name = str(row["entry_point"])
    code = extract_program(answer, names=[name], prompt=prompt(row))
    return _assemble(row, code)


def reference(row: Mapping[str, object]) -> Program:
    """The row's own solution with its tests."""
    return _assemble(row, prompt(row) + str(row["canonical_solution"]))


def _assemble(row: Mapping[str, object], code: str) -> Program:
    name = str(row["entry_point"])
    return Program(
        code=code,
        tests=f"{row['test']}\n\ncheck({name})\n",
        # Some tests use helpers that the prompt defines: the tests' process has its own, as the prompt has them.
        prelude=context_of(prompt(row), [name]),
        entry_point=name,
        name=str(row.get("task_id", name)),
    )
