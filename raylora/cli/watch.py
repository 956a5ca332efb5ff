"""`raylora watch`."""

from __future__ import annotations

import argparse
import contextlib
import sys

from raylora.cli._output import add_json, answer

HELP = "the report of a run on localhost, new while the run goes on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="runs' folders")
    parser.add_argument("--port", type=int, default=8268, metavar="N", help="default: 8268; 0 for any that is free")
    parser.add_argument("--no-rows", action="store_true", help="leave rows of test, which are people's data, out")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.reports.page.serve import PageServer
    from raylora.run.folder import read_run

    for folder in options.runs:
        read_run(folder)
    with PageServer(options.runs, options.port, rows=not options.no_rows) as server:
        print(f"{server.url}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        answer(options, {"url": server.url, "runs": options.runs}, lambda: None)
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
