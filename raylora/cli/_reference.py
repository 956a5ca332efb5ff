"""The commands as Markdown, from their parsers.

`python -m raylora.cli._reference docs/cli.md` brings the page up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from raylora.cli import make_parser

MARK = "<!-- What follows is made from the parsers: python -m raylora.cli._reference docs/cli.md -->\n"


def updated(page: str) -> str:
    """The page with its part below `MARK` made anew."""
    return page.partition(MARK)[0] + MARK + "\n" + "\n".join(_commands(make_parser()))


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for command in group.choices.values():
            yield from _commands(command)
    if groups:
        return
    shown = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    # A positional first: an option with a value that may be left out would take it.
    shown.sort(key=lambda action: bool(action.option_strings))
    yield f"### {parser.prog}\n"
    yield f"{parser.description}\n"
    yield f"```\n{' '.join([parser.prog, *map(_usage, shown)])}\n```\n"
    for action in shown:
        if action.help:
            name = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
            yield f"- `{name}`: {action.help}"
    yield ""


def _usage(action: argparse.Action) -> str:
    value = str(action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else action.dest.upper()))
    if action.nargs == "+":
        value = f"{value} ..."
    elif action.nargs == "*":
        value = f"[{value} ...]"
    elif action.nargs == "?":
        value = f"[{value}]"
    if action.nargs == 0:
        value = ""
    if not action.option_strings:
        return value
    text = f"{action.option_strings[-1]} {value}".strip()
    return text if action.required else f"[{text}]"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(updated(page.read_text()))
