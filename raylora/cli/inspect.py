"""`raylora inspect`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from raylora.cli._output import add_json, answer, at_least_one, listed, written
from raylora.errors import UserError

HELP = "what is in the data, and what the model will see of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA|SPEC.yaml", help="file, glob, folder or hub id; or a spec with its task")
    parser.add_argument("--model", metavar="NAME", help="whose tokenizer and chat template (default: smollm2-135m)")
    parser.add_argument("--config", metavar="NAME", help="configuration of a hub dataset, or a sub-folder")
    parser.add_argument("--columns", metavar="ROLE=COLUMN,...", help="such as prompt=input,response=output")
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="longest prompt plus response (default: as a run's)"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="longest generated answer (default: as a run's)"
    )
    parser.add_argument("--rows", type=int, metavar="N", help="look at the first N rows of each split only")
    parser.add_argument("--html", metavar="FILE.html", help="also as a page")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.build import inspect_data
    from raylora.spec import from_dict, load
    from raylora.spec.paths import writable_file

    at_least_one(options, "rows")
    if options.html:  # first: looking at many rows takes long
        writable_file(options.html, "--html")
    changes = {"max_length": options.max_length, "max_new_tokens": options.max_new_tokens, "columns": _columns(options)}
    changes = {name: value for name, value in changes.items() if value is not None}
    if options.data.endswith((".yaml", ".yml")):
        spec = load(options.data)
        spec = from_dict({**spec.to_dict(), "task": {**spec.task.model_dump(), **changes}})
        model = options.model or spec.model
    else:
        model = options.model or "smollm2-135m"
        extra = {"options": {"config": options.config}} if options.config else {}
        spec = from_dict({"model": model, "task": {"path": options.data, **extra, **changes}})
    report = inspect_data(spec.model_copy(update={"model": model}), rows=options.rows)
    if options.html:
        from raylora.reports.rows import page

        text = page(report)
        with written("--html", options.html) as file:
            file.write_text(text)
    answer(options, report, lambda: show(report))


def _columns(options: argparse.Namespace) -> dict[str, str] | None:
    pairs = listed(options.columns)
    if pairs is None:
        return None
    split = [pair.partition("=") for pair in pairs]
    if not all(role and column for role, _, column in split):
        raise UserError.at(
            "--columns", f"{options.columns}; allowed: role=column, separated by commas", value=options.columns
        )
    return {role: column for role, _, column in split}


def show(report: Mapping[str, Any]) -> None:
    """The report on the terminal: tables, rows with their trained tokens in colour, warnings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from raylora.cli._output import unfolded
    from raylora.reports.rows import facts

    console = unfolded(Console(highlight=False))
    splits = report["splits"]
    table = Table("", *splits)
    for name, values in facts(splits):
        table.add_row(name, *map(Text, values))
    console.print(table)
    for row in report["shown"]:
        text = Text(f"{row['at']}\n", style="bold")
        for piece in row["pieces"]:
            # Underlined too: a file and a pipe have no colour, and not every eye tells two apart.
            text.append(piece["text"], style="not bold green underline" if piece["trained"] else "not bold")
        console.print(text, soft_wrap=True)
        if not console.is_terminal:
            trained = " ".join(repr(piece["text"]) for piece in row["pieces"] if piece["trained"])
            console.print(Text(f"trained on: {trained}"), soft_wrap=True)
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
