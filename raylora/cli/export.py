"""`raylora export`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer

HELP = "the adapter (PEFT) or the merged model (transformers)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("--to", required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--merge", action="store_true", help="write the merged model, in float32")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.api.tuning import export

    folder = export(options.run_dir, options.to, merge=options.merge)
    answer(options, {"folder": str(folder), "merged": options.merge}, lambda: print(folder))
