"""What the metric pass_at_k runs programs with: a completion and its row in, whether its tests passed out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raylora.errors import UserError
from raylora.tasks.code import humaneval, mbpp
from raylora.tasks.sandbox import Limits, Outcome, Program, Sandbox

_FORMS: dict[str, tuple[Callable[..., Program], tuple[str, ...]]] = {
    "humaneval": (humaneval.program, ("prompt", "entry_point", "test")),
    "mbpp": (mbpp.program, ("test_list",)),
}


def _fields(row: Mapping[str, Any]) -> dict[str, object]:
    metadata = row.get("metadata") or {}
    return json.loads(metadata) if isinstance(metadata, str) else dict(metadata)


@dataclass(frozen=True)
class Check:
    """Runs completions against the tests of their rows. Pickles, and travels to the actor that scores.

    Attributes:
        form: `humaneval` (EvalPlus too) or `mbpp`: how a row's `metadata` (JSON) holds its tests, with the published
            field names.
        kind: the sandbox, the first that can be had where None.
        unsafe: run without walls where none can be had.
        limits: bounds on each program.
    """

    form: str
    kind: str | None = None
    unsafe: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.form not in _FORMS:
            raise UserError.at(
                "form",
                f"{self.form!r} is no form of code tests; choose {', '.join(_FORMS)}",
                value=self.form,
                allowed=list(_FORMS),
            )

    def __call__(self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each passes, `(m,)`. Raises UserError for a row without tests, or where no sandbox can be had."""
        return [outcome.passed for outcome in self.outcomes(completions, rows)]

    def outcomes(self, completions: Sequence[str], rows: Sequence[Mapping[str, object]]) -> list[Outcome]:
        """What became of each, `(m,)`; raises as a call does."""
        programs = [self.program(text, row) for text, row in zip(completions, rows, strict=True)]
        return Sandbox(self.kind, unsafe=self.unsafe, limits=self.limits).run_tests(programs)

    def program(self, completion: str, row: Mapping[str, object]) -> Program:
        """The program that a completion and its row's tests make."""
        make, needed = _FORMS[self.form]
        fields = _fields(row)
        missing = [name for name in needed if not fields.get(name)]
        if missing:
            raise UserError.at(
                "metadata",
                f"a row of {self.form} without {', '.join(missing)}; keep the published columns",
                allowed=missing,
            )
        return make(fields, completion)


@dataclass(frozen=True)
class CheckByRow:
    """As `Check`, for rows of several forms: each names its own under `form` in its metadata.

    Attributes:
        kind, unsafe, limits: see `Check`.
    """

    kind: str | None = None
    unsafe: bool = False
    limits: Limits = field(default_factory=Limits)

    def __call__(self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each passes, `(m,)`. Raises UserError for a row without tests, or where no sandbox can be had."""
        checks = {form: Check(form, self.kind, self.unsafe, self.limits) for form in _FORMS}
        programs = []
        for text, row in zip(completions, rows, strict=True):
            form = _fields(row).get("form")
            if form not in checks:
                raise UserError.at("task.metrics", "pass@k on rows without tests; it counts on test sets of code alone")
            programs.append(checks[form].program(text, row))
        box = Sandbox(self.kind, unsafe=self.unsafe, limits=self.limits)
        return [outcome.passed for outcome in box.run_tests(programs)]
