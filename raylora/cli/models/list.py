"""`raylora models list`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer, print_table

HELP = "bundled aliases and where they lie"

add_arguments = add_json


def run(options: argparse.Namespace) -> None:
    from raylora.api.listing import list_models

    rows = list_models()
    columns = ["alias", "source", "path"]
    answer(options, rows, lambda: print_table(columns, [[row[name] or "" for name in columns] for row in rows]))
