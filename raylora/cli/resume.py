"""`raylora resume`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, add_quiet, add_unsafe, answer
from raylora.cli._summary import show_summary

HELP = "finish an interrupted run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    add_quiet(parser)
    add_unsafe(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import resume
    from raylora.tasks.sandbox import unsafe_code

    with unsafe_code(options.unsafe_code):
        summary = resume(options.run_dir, quiet=options.quiet).summary
    answer(options, summary, lambda: show_summary(summary))
