"""`raylora tune`."""

from __future__ import annotations

import argparse

from raylora.cli._asked import add_asked, asked_spec, process_began
from raylora.cli._output import add_json, add_quiet, add_unsafe, answer
from raylora.cli._summary import show_summary

HELP = "search, retrain the best recipe, write the adapter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_asked(parser)
    add_quiet(parser)
    add_unsafe(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import tune_checked
    from raylora.run.checks import check_world
    from raylora.tasks.sandbox import unsafe_code

    with unsafe_code(options.unsafe_code):
        spec = asked_spec(options)
        check_world(spec)
        summary = tune_checked(spec, quiet=options.quiet, began=process_began()).summary
    answer(options, summary, lambda: show_summary(summary))
