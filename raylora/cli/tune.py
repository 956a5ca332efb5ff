"""`raylora tune`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, add_quiet, add_spec, answer
from raylora.cli._summary import show_summary

HELP = "search, retrain the best recipe, write the adapter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser)
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import tune
    from raylora.spec import load

    summary = tune(load(options.spec, options.overrides), quiet=options.quiet).summary
    answer(options, summary, lambda: show_summary(summary))
