"""`raylora bench recommend`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from raylora.cli._output import add_json, add_quiet, answer, at_least_one, print_table
from raylora.errors import UserError

HELP = "recommendations, and three trials, on recorded runs that the prior was fitted without"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grids", nargs="*", metavar="GRID.csv", help="tables (default: the bundled sweeps over models)")
    parser.add_argument(
        "--without", action="append", metavar="SOURCE", help="fit without it (default: each table's model family)"
    )
    parser.add_argument("--searcher", metavar="NAME:preset,option=value", help="default: that of a spec")
    parser.add_argument("--seeds", type=int, default=5, help="searches of three trials per table (default 5; 0: none)")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes side by side (default: one per core)")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.recommend import bench_recommend

    at_least_one(options, "jobs")
    if options.seeds < 0:
        raise UserError.at("--seeds", f"{options.seeds}; allowed: 0 or more", value=options.seeds)
    figures = bench_recommend(
        options.grids,
        without=options.without,
        seeds=options.seeds,
        searcher=options.searcher,
        jobs=options.jobs,
        quiet=options.quiet,
    )
    answer(options, figures, lambda: _show(figures))


def _show(figures: Mapping[str, Any]) -> None:
    rows = []
    for name, found in [*figures["tables"].items(), ("mean", figures["mean"])]:
        told = found.get("recommended", {})
        rows.append(
            [
                name,
                ", ".join(found.get("without", [])),
                " ".join(f"{knob} {value:g}" for knob, value in told.items()),
                f"{found['lost']:.4f}",
                *(f"{lost:.4f}" for lost in found.get("searched", [])),
            ]
        )
    searched = [f"after {n}" for n in range(1, max(len(row) for row in rows) - 3)]
    print_table(["table", "without", "recommended", "below best", *searched], rows)
    for rule, lost in figures["mean"]["rules"].items():
        print(f"{rule}: {lost:.4f} below best on average")
