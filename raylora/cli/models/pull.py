"""`raylora models pull`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, add_quiet, answer

HELP = "fetch a model into the cache"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="alias, folder or hub id")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.models import resolve

    folder = resolve(options.name, quiet=options.quiet)
    answer(options, {"name": options.name, "folder": str(folder)}, lambda: print(folder))
