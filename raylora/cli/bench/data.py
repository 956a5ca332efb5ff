"""`raylora bench data`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, add_quiet, answer, at_least_one, print_table

HELP = "time and memory from a file of many rows to the first trial, against the bare tokenizer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=395_000, help="rows, generated on the spot (default 395000)")
    parser.add_argument("--words", type=int, default=210, help="words per row (default 210)")
    parser.add_argument("--folder", metavar="DIR", help="where files are made (default: the temporary folder)")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.data import bench_data

    at_least_one(options, "rows", "words")
    figures = bench_data(rows=options.rows, words=options.words, folder=options.folder, quiet=options.quiet)
    rows = [[name, f"{value:g}"] for name, value in figures.items()]
    answer(options, figures, lambda: print_table(["figure", "value"], rows))
