"""`raylora bench evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from raylora.cli._output import add_json, add_quiet, answer, at_least_one, print_table, whole_numbers
from raylora.errors import UserError

HELP = "speed of generating answers, against transformers.generate on the same rows"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2-135m", metavar="NAME", help="alias, folder or hub id")
    parser.add_argument("--rows", type=int, default=200, help="questions, made up on the spot (default 200)")
    parser.add_argument("--shortest", type=int, default=5, help="answer, in tokens (default 5)")
    parser.add_argument("--longest", type=int, default=160, help="answer, in tokens (default 160)")
    parser.add_argument("--batches", default="8,32,200", help="sizes to try transformers at (default 8,32,200)")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="float32", help="default float32")
    parser.add_argument("--engine", choices=("vllm",), help="have that answer, too")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.evaluate import bench_evaluate
    from raylora.run.vllm import vllm_python

    at_least_one(options, "rows", "shortest")
    if options.longest < options.shortest:
        raise UserError.at(
            "--longest", f"{options.longest}; allowed: at least --shortest, {options.shortest}", value=options.longest
        )
    batches = whole_numbers("--batches", options.batches) or []
    if min(batches, default=0) < 1:
        raise UserError.at(
            "--batches",
            f"{options.batches}; allowed: whole numbers above 0, separated by commas",
            value=options.batches,
        )
    if options.engine is not None:
        vllm_python("--engine")
    figures = bench_evaluate(
        options.model,
        rows=options.rows,
        shortest=options.shortest,
        longest=options.longest,
        batches=batches,
        dtype=options.dtype,
        engine=options.engine,
        quiet=options.quiet,
    )
    answer(options, figures, lambda: _show(figures))


def _show(figures: Mapping[str, Any]) -> None:
    sides = {"raylora": figures["ours"]}
    sides |= {f"transformers, batch {size}": told for size, told in figures["transformers"].items()}
    vllm = figures.get("vllm")
    sides |= {} if vllm is None else {"vLLM": vllm}
    print_table(
        ["side", "seconds", "processor, s", "rows/s", "tokens/s"],
        [
            [
                name,
                f"{told['seconds']:.1f}",
                f"{told['cpu_s']:.1f}",
                f"{told['rows_per_s']:.2f}",
                f"{told['tokens_per_s']:.1f}",
            ]
            for name, told in sides.items()
        ],
    )
    print(
        f"{figures['speedup']:.2f} times as fast as transformers at its best batch, {figures['best_batch']} "
        f"({figures['cpu_speedup']:.2f} by processor time); "
        f"{figures['equal_rows']} of {figures['rows']} answers are equal token for token{_ties(figures)}"
    )
    if vllm is not None:
        print(
            f"vLLM: {vllm['speedup']:.2f} times as fast as raylora ({vllm['cpu_speedup']:.2f} by processor time), once "
            f"it was loaded in {vllm['load_s']:.0f} s; {vllm['equal_rows']} of {figures['rows']} answers are raylora's"
        )


def _ties(figures: Mapping[str, Any]) -> str:
    """Of the other answers, how many part at a tie, and how far apart the logits are at most."""
    gaps = figures["gaps"].values()
    if not gaps:
        return ""
    return f", {figures['tied_rows']} more up to a tie; where others part, the logits are at most {max(gaps):.1g} apart"
