"""`raylora bench chaos`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from raylora.cli._output import add_json, add_quiet, answer, at_least_one, listed, print_table

HELP = "kill what searches consist of at random moments, resume them, and check that nothing is lost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=100, help="to be recorded in the folder (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of what is done when (default 0)")
    parser.add_argument("--folder", metavar="FOLDER", help="of searches and records; the same one again goes on there")
    parser.add_argument("--kinds", metavar="A,B,..", help="of what is done (default: all that this machine allows)")
    parser.add_argument("--samples", type=int, default=1600, help="of a trial, some 500 a second (default 1600)")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    from raylora.bench.chaos.monkey import bench_chaos

    at_least_one(options, "kills", "samples")
    figures = bench_chaos(
        kills=options.kills,
        seed=options.seed,
        folder=options.folder,
        kinds=listed(options.kinds),
        samples=options.samples,
        quiet=options.quiet,
    )
    answer(options, figures, lambda: _show(figures))
    return int(bool(figures["lost"] or figures["repeated"] or figures["broken"]))


def _show(figures: Mapping[str, Any]) -> None:
    from raylora.bench.chaos.report import COLUMNS, rows

    print_table(COLUMNS, rows(figures))
    for kind, why in figures["skipped"].items():
        print(f"skipped: {kind}, {why}")
    for line in figures["broken"]:
        print(f"broken: {line}")
