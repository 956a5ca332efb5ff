"""`raylora tune`."""

from __future__ import annotations

import argparse

from raylora.cli._asked import add_asked, asked_spec
from raylora.cli._output import add_json, add_quiet, answer
from raylora.cli._summary import show_summary

HELP = "search, retrain the best recipe, write the adapter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_asked(parser)
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import tune

    summary = tune(asked_spec(options), quiet=options.quiet).summary
    answer(options, summary, lambda: show_summary(summary))
