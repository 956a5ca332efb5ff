"""A user's own function as a metric."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from raylora.errors import UserError
from raylora.metrics.base import Metric, MetricRow, check_choice, check_lengths
from raylora.spec.text import short

_FORM = "give package.module:function"


class Python(Metric):
    """The mean of what a function of the user's own gives each row.

    `function(completions, rows)` is called with a list of texts and the list of the rows that they answer (mappings
    with `prompt`, `response`, `answer` and `metadata`), and returns a finite number for each. It runs as the user who
    started the run, in every process that scores, with all that this user may do: it is the user's own code, not the
    model's.

    Args:
        function: where it is, such as `my_package.scores:politeness`; a module in the working folder is found too.
        mode: `max` or `min`, the better end.
        worst: what a diverged trial is worth.
    """

    name = "python"
    summary = "a function of your own: package.module:function, called with completions and rows"
    main = "function"
    costly = True
    marks = frozenset({"classes", "numbers"})

    def __init__(self, *, function: str, mode: str = "max", worst: float = 0.0) -> None:
        check_choice(self.name, "mode", mode, ("max", "min"))
        if isinstance(worst, bool) or not isinstance(worst, int | float) or not math.isfinite(worst):
            raise UserError.at("python.worst", f"{worst!r} is not allowed; give a finite number", value=worst)
        self.function, self.worst = function, float(worst)
        self.mode = "max" if mode == "max" else "min"
        self.key = str(function).partition(":")[2]
        # Another process may run in another folder.
        self._folder = str(Path.cwd())
        self._load()

    def _load(self) -> Callable[[list[str], list[MetricRow]], Any]:
        module, _, name = str(self.function).partition(":")
        if not module or not name.isidentifier():
            raise UserError.at("python.function", f"{self.function!r} names no function; {_FORM}", value=self.function)
        try:
            with self._at_home():
                found = getattr(import_module(module), name, None)
        except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
            raise UserError.at(
                "python.function",
                f"{self.function!r} cannot be imported ({_reason(error)}); {_FORM}",
                value=self.function,
            ) from error
        if not callable(found):
            raise UserError.at("python.function", f"{module} has no function {name!r}; {_FORM}", value=self.function)
        return found

    @contextlib.contextmanager
    def _at_home(self) -> Iterator[None]:
        """With the working folder importable; what is printed goes to standard error: answers are on the other."""
        added = self._folder not in sys.path
        if added:
            sys.path.append(self._folder)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        finally:
            if added:
                sys.path.remove(self._folder)

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[float]:
        check_lengths(outputs, rows)
        if not rows:
            return []
        function = self._load()
        try:
            with self._at_home():
                values = list(function(list(outputs), list(rows)))
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's function does
            raise UserError.at(
                "python.function", f"{self.function} failed ({_reason(error)}); mend it", value=self.function
            ) from error
        if len(values) != len(rows):
            raise UserError.at(
                "python.function",
                f"{self.function} gave {len(values)} values for {len(rows)} rows; give one each",
                value=self.function,
            )
        return [self._checked(value, place) for place, value in enumerate(values)]

    def _checked(self, value: Any, place: int) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError.at(
                "python.function",
                f"{self.function} gave {short(value)} for row {place}; give a finite number",
                value=self.function,
            )
        return number


def _reason(error: BaseException) -> str:
    told = str(error).strip()
    return f"{type(error).__name__}: {told}".splitlines()[0] if told else type(error).__name__
