"""`raylora plan`."""

from __future__ import annotations

import argparse

from raylora.cli._asked import add_asked, asked_spec
from raylora.cli._output import add_json, add_quiet, answer

HELP = "what a run would do, how long, how much memory; starts none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_asked(parser, "name", "to")
    parser.add_argument(
        "--calibrate", action="store_true", help="take a few steps of training to measure costs, instead of estimating"
    )
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.run.checks import check_world
    from raylora.run.planning import plan_only

    spec = asked_spec(options)
    check_world(spec)
    found = plan_only(spec, calibrate=options.calibrate, quiet=options.quiet)
    answer(options, found, lambda: print("\n".join(found["lines"])))
