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
    from raylora.run import experiment
    from raylora.run.checks import load_checked

    spec = load_checked(options.spec, options.overrides)
    summary = experiment.tune(spec, quiet=options.quiet)
    answer(options, summary, lambda: show_summary(summary))
