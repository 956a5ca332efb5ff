"""`raylora submit`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_spec

HELP = "run a spec as a job on a Ray cluster"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser)
    parser.add_argument("--address", required=True, metavar="URL", help="for example http://head:8265")
    parser.add_argument("--working-dir", default=".", metavar="DIR", help="travels to the cluster (default: here)")


def run(options: argparse.Namespace) -> int:
    from clusters.submit import submit

    return submit(options.spec, options.overrides, address=options.address, working_dir=options.working_dir)
