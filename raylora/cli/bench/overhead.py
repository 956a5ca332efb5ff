"""`raylora bench overhead`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, add_quiet, answer, print_table

HELP = "fixed cost per trial, against Tune + TorchTrainer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=50, help="hosted trials (default 50)")
    parser.add_argument("--nest-trials", type=int, default=3, help="trials of the plain nest (default 3)")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.overhead import bench_overhead

    figures = bench_overhead(trials=options.trials, nest_trials=options.nest_trials, quiet=options.quiet)
    rows = [[name, f"{value:g}"] for name, value in figures.items()]
    answer(options, figures, lambda: print_table(["figure", "value"], rows))
