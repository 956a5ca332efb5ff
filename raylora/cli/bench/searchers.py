"""`raylora bench searchers`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from raylora.cli._output import add_json, add_quiet, answer, at_least_one, print_table
from raylora.errors import UserError

HELP = "searchers on recorded grids of trained configurations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grids", nargs="+", metavar="GRID.csv", help="a CSV, or the name of a bundled grid")
    parser.add_argument("--searchers", default="random,tpe,gp,language", metavar="A,B:preset,option=value,...")
    parser.add_argument("--seeds", type=int, default=20, help="searches per searcher (default 20)")
    parser.add_argument("--trials", type=int, default=30, help="trials per search (default 30)")
    parser.add_argument("--prior-shift", type=float, default=1.0, metavar="F", help="put knowledge's rate off by F")
    parser.add_argument("--llm", default="smollm2-135m", help="language model of the language searcher")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes side by side (default: one per core)")
    parser.add_argument(
        "--without",
        action="append",
        metavar="SOURCE",
        help="search with the prior learned without this table, model family or origin",
    )
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.searchers import bench_searchers

    at_least_one(options, "seeds", "trials", "jobs")
    if not options.prior_shift > 0:
        raise UserError.at(
            "--prior-shift", f"{options.prior_shift}; allowed: a factor above 0", value=options.prior_shift
        )
    figures = bench_searchers(
        options.grids,
        options.searchers,
        seeds=options.seeds,
        trials=options.trials,
        prior_shift=options.prior_shift,
        llm=options.llm,
        jobs=options.jobs,
        without=options.without,
        quiet=options.quiet,
    )
    answer(options, figures, lambda: _show(options, figures))


def _show(options: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    from raylora.bench.searchers import REPORTED

    at = [str(t) for t in REPORTED if t <= options.trials]
    rows = []
    for label, found in figures["searchers"].items():
        for grid, part in [("all", found), *(found["grids"].items() if len(options.grids) > 1 else ())]:
            error = "" if part["auc_se"] is None else f" ± {part['auc_se']:.3f}"
            wall = f"{found['wall_s']:.0f} s" if grid == "all" else ""
            rows.append([label, grid, f"{part['auc']:.3f}{error}", *(f"{part['regret'][t]:.3f}" for t in at), wall])
    print_table(["searcher", "grid", "auc", *(f"regret@{t}" for t in at), "wall"], rows)
