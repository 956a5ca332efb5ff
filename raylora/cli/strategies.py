"""`raylora strategies`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer_files, at_least_one

HELP = "which slices LeLoRA chose over training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a run's folder, or a trial's Parquet in it")
    parser.add_argument("--to", required=True, metavar="STEM", help="writes STEM.csv and STEM.svg")
    parser.add_argument("--parts", type=int, default=8, help="parts that training is cut into (default 8)")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.reports.strategies import read_strategies, write_strategies

    at_least_one(options, "parts")
    answer_files(options, write_strategies(read_strategies(options.source), options.to, options.parts))
