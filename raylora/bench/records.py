"""What measurements keep on disk to go on from, and the tables that are made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raylora.errors import UserError
from raylora.metrics.statistics import standard_error
from raylora.spec.text import short


def read_record(file: Path, what: str, fields: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """A record of one JSON file.

    Args:
        what: the record and its command, such as "run of `raylora bench convergence`".
        fields: those that it has to have, and what each is made with.

    Raises:
        UserError: the file is none.
    """
    try:
        found = json.loads(file.read_text())
        return {**found, **{name: make(found[name]) for name, make in fields.items()}}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{file}: no {what}; remove it, or name another folder", field="--to", value=str(file)
        ) from None


def check_about(file: Path, found: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuses to go on in a folder whose file is about something else. Errors: UserError."""
    for name in {**about, **found}:
        if found.get(name) != about.get(name):
            raise UserError(
                f"--to {file.parent}: {file.name} has {name} = {short(found.get(name))}, not "
                f"{short(about.get(name))}; name another folder",
                field="--to",
                value=str(file.parent),
            )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of a header and its rows."""
    head, *rest = rows
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rest))


def mean(values: Sequence[float]) -> float:
    """NaN where there are none."""
    return sum(values) / len(values) if values else math.nan


def with_error(values: Sequence[float], sign: str = "-") -> str:
    """Mean ± standard error, where there are several; `sign` as in a format specification."""
    told = f"{mean(values):{sign}.3f}"
    return told if len(values) == 1 else f"{told} ± {standard_error(values):.3f}"
