"""`raylora submit`."""

from __future__ import annotations

import argparse
import sys

from raylora.cli._output import add_json, add_spec, answer

HELP = "run a spec as a job on a Ray cluster"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser)
    parser.add_argument("--address", required=True, metavar="URL", help="for example http://head:8265")
    parser.add_argument("--working-dir", default=".", metavar="DIR", help="travels to the cluster (default: here)")
    parser.add_argument("--no-wait", action="store_true", help="return once the cluster has taken the job")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    from clusters.submit import submit

    done = submit(
        options.spec,
        options.overrides,
        address=options.address,
        working_dir=options.working_dir,
        follow=not options.no_wait,
        # The job's own output is no part of an answer in JSON.
        write=sys.stderr.write if options.json == "-" else sys.stdout.write,
    )
    answer(options, vars(done), lambda: None)
    return 0 if done.state in ("succeeded", "pending") else 1
