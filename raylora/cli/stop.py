"""`raylora stop`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer

HELP = "end a trial of a search that runs, or the search itself"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("trial", nargs="?", metavar="TRIAL", help="its number or key; without it the search ends")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import open_run

    told = open_run(options.run_dir).stop(options.trial)
    answer(options, told, lambda: print(told["told"]))
