"""`raylora report`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer_files

HELP = "a learning-rate sweep as table, plot and recorded grid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="runs' folders, or a JSON of records")
    parser.add_argument("--to", required=True, metavar="STEM", help="writes STEM.md, STEM.svg, STEM.records.json")
    parser.add_argument("--grid", metavar="FILE.csv", help="also as a recorded grid for `raylora bench searchers`")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.reports.sweep import merge, read_sweep, write_report

    answer_files(
        options, write_report(merge([read_sweep(source) for source in options.sources]), options.to, options.grid)
    )
