"""`raylora recommend`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from raylora.cli._output import add_json, answer

if TYPE_CHECKING:
    from raylora.run.recommend import Recommendation

HELP = "the recipe expected to be best before any trial, and why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="NAME", help="alias, folder or hub id; its config is read")
    parser.add_argument("--data", metavar="PATH", help="rows to train on: they are counted")
    parser.add_argument("--samples", type=int, metavar="N", help="rows that training sees, epochs included")
    parser.add_argument("--variant", default="lora", metavar="NAME", help="default lora")
    parser.add_argument("--rank", type=int, metavar="R", help="a rank of your own")
    parser.add_argument("--alpha", type=float, metavar="A", help="an alpha of your own")
    parser.add_argument("--batch-size", type=int, metavar="N", help="a batch size of your own")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.run.recommend import recommend

    found = recommend(
        options.model,
        data=options.data,
        samples=options.samples,
        variant=options.variant,
        rank=options.rank,
        alpha=options.alpha,
        batch_size=options.batch_size,
    )
    answer(options, found.as_dict(), lambda: _show(found))


def _show(found: Recommendation) -> None:
    for name, value in found.recipe.items():
        print(f"{name:14} {value:g}" if not isinstance(value, str) else f"{name:14} {value}")
    print(f"the best learning rate lies between {found.low:.1e} and {found.high:.1e} with probability 0.8")
    for reason in found.reasons:
        print(f"  {reason}")
