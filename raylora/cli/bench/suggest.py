"""`raylora bench suggest`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, add_quiet, answer, print_table, whole_numbers

HELP = "one iteration of the language surrogate over 45,360 configurations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2-135m", help="alias, folder or hub id (default smollm2-135m)")
    parser.add_argument("--observed", type=int, default=30, help="observations to fit (default 30)")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: what the hardware multiplies best")
    parser.add_argument("--sample", type=int, default=96, help="prompts that the naive way is measured on")
    parser.add_argument("--check", type=int, default=200, help="configurations compared in float32")
    parser.add_argument(
        "--counts",
        metavar="N,N",
        help="instead: seconds of the preset default, without a language model, after so many observations",
    )
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    counts = whole_numbers("--counts", options.counts)
    if counts:
        from raylora.bench.cost import bench_cost

        costs = bench_cost(counts, quiet=options.quiet)
        table = [[count, *(f"{value:.3f}" for value in one.values())] for count, one in costs.items()]
        head = ["observed", "suggest, longest, s", "fit, s", "scores, s", "proposal, s"]
        answer(options, costs, lambda: print_table(head, table))
        return
    from raylora.bench.suggest import bench_suggest

    figures = bench_suggest(
        options.model,
        observed=options.observed,
        dtype=options.dtype,
        sample=options.sample,
        check=options.check,
        quiet=options.quiet,
    )
    rows = [[name, f"{value:g}"] for name, value in figures.items()]
    answer(options, figures, lambda: print_table(["figure", "value"], rows))
