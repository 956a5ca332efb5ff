"""`raylora doctor`."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from raylora.cli._output import add_json, answer, print_table

HELP = "what of this machine works for raylora, what does not, and the remedy"
_MARKS = {"ok": "works", "optional": "not there", "warning": "careful", "broken": "BROKEN"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", default="runs", metavar="FOLDER", help="where runs would be written (default: runs)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    from raylora.run.plan.machine import check_machine, works

    checks = check_machine(options.to)
    rows = [[check.name, _MARKS[check.state], check.found, check.remedy] for check in checks]
    figures = {"works": works(checks), "checks": [asdict(check) for check in checks]}
    answer(options, figures, lambda: print_table(["what", "", "found", "remedy"], rows))
    return 0 if works(checks) else 1
