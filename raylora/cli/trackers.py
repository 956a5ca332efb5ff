"""`raylora trackers`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer, print_table

HELP = "list the trackers"

add_arguments = add_json


def run(options: argparse.Namespace) -> None:
    from raylora.trackers import TRACKERS

    rows = [{"name": name, "summary": cls.summary} for name, cls in TRACKERS.classes().items()]
    table = [[row["name"], row["summary"]] for row in rows]
    answer(options, rows, lambda: print_table(["tracker", "what it is"], table))
