"""`raylora bench variants`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from raylora.cli._output import add_json, add_quiet, answer, at_least_one, print_table
from raylora.errors import UserError

HELP = "step time, memory, size and attach time of variants, against lora"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="NAME", help="alias, folder or hub id")
    parser.add_argument("--variants", default="", metavar="A,B:option=value", help="names, with options (default: all)")
    parser.add_argument("--rank", type=int, default=8, help="default 8")
    parser.add_argument("--rows", type=int, help="rows per step (default 4, thorough 8)")
    parser.add_argument("--length", type=int, help="tokens per row (default 64, thorough 128)")
    parser.add_argument("--repetitions", type=int, help="most turns of each variant (default 5)")
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="every turn of every variant, and networks at the paper's size too: hours instead of ten minutes",
    )
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of the base")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.variants import THOROUGH, Effort, bench_variants

    given = {name: getattr(options, name) for name in ("rows", "length", "repetitions")}
    given = {name: value for name, value in given.items() if value is not None}
    at_least_one(options, "rank", "rows", "repetitions")
    if given.get("length", 4) < 4:
        raise UserError.at(
            "--length", f"{options.length}; allowed: at least 4, a quarter of which is completion", value=options.length
        )
    figures = bench_variants(
        options.model,
        variants=[name for name in options.variants.split(",") if name],
        rank=options.rank,
        effort=replace(THOROUGH if options.thorough else Effort(), **given),
        dtype=options.dtype,
        quiet=options.quiet,
    )
    answer(options, figures, lambda: _show(figures))


def _show(figures: Mapping[str, Any]) -> None:
    print_table(
        [
            "variant",
            "step time / lora",
            "peak memory / lora",
            "trainable",
            "attach, s",
            "adapter",
            "hypernetwork",
            "its time / lora",
            "its Gmac a step",
            "optimizer, MB",
        ],
        [
            [
                name,
                f"{f['step_time']:.2f}",
                f"{f['peak_memory']:.2f}",
                f"{f['trainable']:,}",
                f"{f['attach_s']:.2f}",
                f"{f['adapter']:,}",
                f"{f['hypernetwork']:,}",
                f"{f['hypernetwork_time']:.2f}",
                f"{f['hypernetwork_gmac']:.1f}",
                f"{f['optimizer_mb']:.1f}",
            ]
            for name, f in figures["variants"].items()
        ],
    )
