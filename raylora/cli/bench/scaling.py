"""`raylora bench scaling`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from raylora.cli._output import add_json, add_quiet, answer, at_least_one, print_table
from raylora.errors import UserError

HELP = "step time, memory and losses of checkpointing, packing, quantised bases and strategies for workers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2-135m", metavar="NAME", help="alias, folder or hub id")
    parser.add_argument("--ways", metavar="A;B", help="such as fsdp;zero3, separated by semicolons (default all)")
    parser.add_argument("--workers", type=int, default=2, help="that share a trial (default 2)")
    parser.add_argument("--rows", type=int, default=8, help="rows per step (default 8)")
    parser.add_argument("--longest", type=int, default=128, help="tokens of the longest row (default 128)")
    parser.add_argument("--rank", type=int, default=8, help="default 8")
    parser.add_argument("--turns", type=int, default=3, help="of each way (default 3)")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of the base")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.scaling import bench_scaling

    at_least_one(options, "rows", "rank", "workers", "turns")
    if options.longest < 8:
        raise UserError.at("--longest", f"{options.longest}; allowed: at least 8 tokens", value=options.longest)
    figures = bench_scaling(
        options.model,
        ways=[name.strip() for name in (options.ways or "").split(";") if name.strip()],
        rows=options.rows,
        longest=options.longest,
        rank=options.rank,
        workers=options.workers,
        turns=options.turns,
        dtype=options.dtype,
        quiet=options.quiet,
    )
    answer(options, figures, lambda: _show(figures))


def _show(figures: Mapping[str, Any]) -> None:
    about = figures["about"]
    print(
        f"{about['model']} on {about['device']} in {about['dtype']}; plain: {about['plain_step_s']:.2f} s a step, "
        f"{about['plain_peak_mb']:.0f} MB at most, base model included. All times and peaks are ratios to it."
    )
    print_table(
        [
            "way",
            "workers",
            "step time",
            "processor time",
            "peak memory per worker",
            "losses differ by",
            "from plain's by",
        ],
        [
            [
                name,
                str(way["workers"]),
                *(f"{way[figure]:.2f}" for figure in ("step_time", "cpu_time", "peak_memory")),
                f"{way['loss']:.0e}",
                "" if way["loss_from_plain"] is None else f"{way['loss_from_plain']:.0e}",
            ]
            for name, way in figures["ways"].items()
        ],
    )
