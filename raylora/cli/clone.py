"""`raylora clone`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer, knobs

HELP = "try a trial's configuration next with some knobs changed, in a search that runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("trial", metavar="TRIAL", help="its number or key")
    parser.add_argument("changes", nargs="+", metavar="knob=value", help="such as rank=16 learning_rate=1e-4")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import open_run

    told = open_run(options.run_dir).clone(options.trial, **knobs(options.changes))
    answer(options, told, lambda: print(told["told"]))
