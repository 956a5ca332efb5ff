"""`raylora trackers`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer, print_table

HELP = "list the trackers"

add_arguments = add_json


def run(options: argparse.Namespace) -> None:
    from raylora.api.listing import list_trackers

    rows = list_trackers()
    table = [[row["name"], row["summary"]] for row in rows]
    answer(options, rows, lambda: print_table(["tracker", "what it is"], table))
