"""`raylora bench packed`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylora.cli._output import add_json, add_quiet, answer, at_least_one, listed, print_table, whole_numbers
from raylora.errors import UserError

HELP = "trials that share passes, against the same trials one at a time: speed and memory"
PAIR = re.compile(r"([1-9]\d*)x([1-9]\d*)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", default="smollm2-135m", metavar="A,B", help="aliases, folders, hub ids, random-1b")
    parser.add_argument("--packs", default="8", metavar="N,N", help="trials at a time (default 8)")
    parser.add_argument(
        "--batches", default="2x30,4x30,8x128", metavar="ROWSxTOKENS,..", help="of a trial (default 2x30,4x30,8x128)"
    )
    parser.add_argument("--variant", default="lora", help="default lora")
    parser.add_argument("--rank", type=int, default=8, help="default 8")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each side, the first not counted (default 6)")
    parser.add_argument(
        "--evaluate", default="4x48", metavar="ADAPTERSxROWS", help="to score together (default 4x48; none for nothing)"
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure peaks")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="float32", help="default float32")
    parser.add_argument("--profiles", metavar="FOLDER", help="also write torch's profile of each shared turn there")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.packed.arms import Batch
    from raylora.bench.packed.measure import bench_packed
    from raylora.spec.paths import writable_folder
    from trainables.variants import available

    at_least_one(options, "rank")
    if options.rounds < 2:
        raise UserError.at("--rounds", f"{options.rounds}; allowed: at least 2", value=options.rounds)
    if options.variant not in available():
        raise UserError.at("--variant", f"{options.variant}; allowed: {', '.join(available())}", value=options.variant)
    packs = whole_numbers("--packs", options.packs) or []
    if min(packs, default=0) < 1:
        raise UserError.at(
            "--packs", f"{options.packs}; allowed: whole numbers above 0, separated by commas", value=options.packs
        )
    batches = [Batch(*_pair("--batches", text)) for text in listed(options.batches) or []]
    if any(batch.length < 4 for batch in batches):
        raise UserError.at("--batches", f"{options.batches}; allowed: rows of at least 4 tokens", value=options.batches)
    if options.profiles is not None:
        options.profiles = str(Path(options.profiles).expanduser())
        writable_folder(Path(options.profiles), f"--profiles {options.profiles}")
    figures = bench_packed(
        listed(options.models) or [],
        packs=packs,
        batches=batches,
        variant=options.variant,
        rank=options.rank,
        rounds=options.rounds,
        evaluated=(0, 0) if options.evaluate == "none" else _pair("--evaluate", options.evaluate),
        memory=not options.no_memory,
        device=options.device,
        dtype=options.dtype,
        profiles=options.profiles,
        quiet=options.quiet,
    )
    answer(options, figures, lambda: _show(figures))


def _pair(option: str, text: str) -> tuple[int, int]:
    found = PAIR.fullmatch(text)
    if found is None:
        raise UserError.at(option, f"{text}; allowed: two numbers such as 4x48", value=text)
    return int(found[1]), int(found[2])


def _show(figures: Mapping[str, Any]) -> None:
    print_table(
        ["model", "batch", "pack", "trials/h", "one at a time", "tokens/s", "one at a time", "times as fast", "bar"],
        [
            [
                told["model"],
                told["batch"],
                str(told["pack"]),
                f"{told['trials_per_hour']['packed']:.0f}",
                f"{told['trials_per_hour']['alone']:.0f}",
                f"{told['tokens_per_s']['packed']:.0f}",
                f"{told['tokens_per_s']['alone']:.0f}",
                _gain(told),
                "" if told["bar"] is None else f"{told['bar']:g}",
            ]
            for told in figures["training"]
        ],
    )
    if "evaluation" in figures:
        told = figures["evaluation"]
        print(
            f"scoring {told['adapters']} adapters on {told['rows']} rows each: {_gain(told)} times as fast (bar "
            f"{told['bar']:g}); {100 * told['equal_answers']:.1f} % of the answers are the same text"
        )
    if "memory" in figures:
        told = figures["memory"]
        for side, count in (("packed", told["pack"]), ("alone", 1)):
            parts = ", ".join(
                f"{name.removesuffix('_mb')} {value:.0f}" for name, value in told[side].items() if name != "peak_mb"
            )
            print(f"memory with {count}: peak {told[side]['peak_mb']:.0f} MB: {parts}")
        print(f"the rest: {told['ratio']:.2f} times that of one (bar {told['bar']:g})")


def _gain(told: Mapping[str, Any]) -> str:
    low, high = min(told["ratios"]), max(told["ratios"])
    return f"{told['speedup']:.2f} ({low:.2f} to {high:.2f}; by processor time {told['cpu_speedup']:.2f})"
