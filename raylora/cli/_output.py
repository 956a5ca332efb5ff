"""What the commands share: arguments, tables, answers as JSON, checks of numbers."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


def add_spec(parser: argparse.ArgumentParser, what: str | None = None) -> None:
    """A spec and dotted overrides."""
    parser.add_argument("spec", metavar="SPEC.yaml", help=what)
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="changes to the spec")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress, only the answer")


def add_unsafe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unsafe-code", action="store_true", help="run a model's programs as you, where no sandbox can be had"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: the answer as JSON on standard output, instead of the table; `--json FILE.json`: beside it."""
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        type=_json_file,
        metavar="FILE.json",
        help="print the answer as JSON, or write it to a file",
    )


def _json_file(text: str) -> str:
    """Refuses what was meant as another argument: `--json spec.yaml` must not write over the spec."""
    if text != "-" and not text.endswith(".json") and not text.startswith("/dev/"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .json; to print, put --json last")
    return text


def answer(options: argparse.Namespace, figures: object, show: Callable[[], None]) -> None:
    """The command's answer: `figures` as JSON where `--json` asks for it; `show` prints it for people.

    Standard output holds the one or the other, never both. Raises UserError where the file cannot be written.
    """
    if options.json == "-":
        print(json.dumps(figures, indent=2))
        return
    if options.json:  # first: what was measured is not lost to what comes after
        write_json(options.json, figures)
    show()


def check_json(options: argparse.Namespace) -> None:
    """Raises UserError where a command could not write the file of its answer, before it works for the answer."""
    if getattr(options, "json", None) not in (None, "-"):
        from raylora.spec.paths import writable_file

        writable_file(options.json, "--json")


def write_json(path: str, figures: object) -> None:
    """Raises UserError where nothing can be written there."""
    with written("--json", path) as file:
        file.write_text(json.dumps(figures, indent=2) + "\n")


@contextlib.contextmanager
def written(option: str, path: str) -> Iterator[Path]:
    """The file that an option names, its folder made. Raises UserError where what is done within cannot write it."""
    file = Path(path).expanduser()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield file
    except OSError as error:
        raise UserError(
            f"{option} {path}: {error.strerror or error}; give a file that can be written", field=option, value=path
        ) from None


def answer_files(options: argparse.Namespace, paths: Iterable[Path]) -> None:
    """The files that a command wrote, one path a line."""
    files = [str(path) for path in paths]
    answer(options, {"files": files}, lambda: print("\n".join(files)))


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
            raise UserError.at(f"--{name}", f"{value}; allowed: at least 1", value=value)


def listed(text: str | None) -> list[str] | None:
    """Names separated by commas."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def knobs(changes: Iterable[str]) -> dict[str, object]:
    """Knobs and values of `knob=value`, read as YAML. Errors: UserError."""
    from raylora.spec.text import apply_overrides

    return apply_overrides({}, changes)


def whole_numbers(option: str, text: str | None) -> list[int] | None:
    """Whole numbers separated by commas. Raises UserError for anything else."""
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError.at(option, f"{text}; allowed: whole numbers separated by commas", value=text) from None
