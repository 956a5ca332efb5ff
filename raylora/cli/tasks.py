"""`raylora tasks`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer

HELP = "list the tasks"

add_arguments = add_json


def run(options: argparse.Namespace) -> None:
    from raylora.api.listing import list_tasks

    names = list_tasks()
    answer(options, names, lambda: print("\n".join(names)))
