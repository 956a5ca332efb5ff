"""`raylora bench convergence`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raylora.cli._output import add_json, add_quiet, add_spec, answer_files, at_least_one
from raylora.errors import UserError

HELP = "loss curves of variants, each at its best learning rate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser, "model, task, training; first values of its space")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="one JSON per run; those there are kept")
    parser.add_argument("--arms", required=True, metavar="A,B:option=value@R/R/R", help="with rates of their own")
    parser.add_argument("--rates", default="0.001,0.002,0.004", metavar="R,R,R", help="of arms without their own")
    parser.add_argument("--seeds", type=int, default=3, help="runs at the best rate (default 3)")
    parser.add_argument("--checks", type=int, default=8, help="validation losses taken during a run (default 8)")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.arms import parse_arm
    from raylora.bench.convergence import bench_convergence
    from raylora.run.checks import load_checked

    at_least_one(options, "seeds")
    if options.checks < 0:
        raise UserError.at("--checks", f"{options.checks}; allowed: 0 or more", value=options.checks)
    common = _rates(options.rates.split(","))
    arms, rates = [], {}
    for text in filter(None, options.arms.split(",")):
        name, own, values = text.partition("@")
        try:
            arms.append(parse_arm(name))
        except UserError as error:
            raise UserError.around("--arms ", error) from None
        rates[arms[-1].label] = _rates(values.split("/")) if own else common
    spec = load_checked(options.spec, options.overrides)
    files = bench_convergence(
        spec, options.to, arms=arms, rates=rates, seeds=options.seeds, checks=options.checks, quiet=options.quiet
    )
    answer_files(options, files)


def _rates(texts: Sequence[str]) -> list[float]:
    try:
        rates = [float(text) for text in texts]
    except ValueError:
        rates = []
    if not rates or min(rates) <= 0:
        raise UserError.at("--rates", f"{','.join(texts)}; allowed: numbers above 0", value=texts)
    return rates
