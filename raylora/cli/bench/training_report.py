"""`raylora bench training-report`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer_files

HELP = "table and plot of the searches of `bench training`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--to", required=True, metavar="STEM", help="writes STEM.md and STEM.svg")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.training_report import write_training

    answer_files(options, write_training(options.folder, options.to))
