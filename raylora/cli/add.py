"""`raylora add`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer, knobs
from raylora.errors import UserError

HELP = "give a search that runs a configuration to try next, or another number of trials"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument(
        "changes", nargs="*", metavar="knob=value", help="the default recipe with these, such as rank=16"
    )
    parser.add_argument("--trials", type=int, metavar="N", help="the search ends when so many have finished")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import open_run

    if bool(options.changes) == (options.trials is not None):
        raise UserError.at("knob=value, --trials", "give one of them")
    told = open_run(options.run_dir).add(trials=options.trials, **knobs(options.changes))
    answer(options, told, lambda: print(told["told"]))
