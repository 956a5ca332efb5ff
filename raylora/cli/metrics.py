"""`raylora metrics`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer, print_table

HELP = "list the metrics"

add_arguments = add_json


def run(options: argparse.Namespace) -> None:
    from raylora.metrics import METRICS

    rows = [{"name": name, "summary": cls.summary} for name, cls in METRICS.classes().items()]
    table = [[row["name"], row["summary"]] for row in rows]
    answer(options, rows, lambda: print_table(["metric", "what it measures"], table))
