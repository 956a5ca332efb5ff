"""What the commands share: tables, files of figures, checks of numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """To standard output."""
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*row)
    unfolded(Console(highlight=False)).print(table, markup=False)


def unfolded(console: Console) -> Console:
    """The console, wide enough for whole rows where it is a file or a pipe, which have no width to fold them into."""
    if not console.is_terminal:
        console.width = max(console.width, 240)
    return console


def at_least_one(options: argparse.Namespace, *names: str) -> None:
    """Raises UserError where one of these options is given and below 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}: {value}; allowed: at least 1")


def write_json(path: str | None, figures: Mapping[str, Any]) -> None:
    """Where a path was given. Raises UserError where nothing can be written there."""
    if path:
        file = Path(path).expanduser()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(figures, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"--json {path}: {error.strerror or error}; give a file that can be written") from None
