"""`raylora finish`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, add_quiet, answer
from raylora.cli._summary import show_summary

HELP = "end an interrupted run with the trials that it has: final stage, adapter, summary"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import finish

    summary = finish(options.run_dir, quiet=options.quiet).summary
    answer(options, summary, lambda: show_summary(summary))
