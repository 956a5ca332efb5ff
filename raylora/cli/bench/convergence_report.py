"""`raylora bench convergence-report`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer_files

HELP = "table and plot of the runs of `bench convergence`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--to", required=True, metavar="STEM", help="writes STEM.md and STEM.svg")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.convergence_report import write_convergence

    answer_files(options, write_convergence(options.folder, options.to))
