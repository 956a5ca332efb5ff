"""`raylora push`."""

from __future__ import annotations

import argparse

from raylora.cli._output import add_json, answer

HELP = "the adapter, with its model card, to the hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("repo", metavar="ORG/NAME", help="the model repository, made where it is not there")
    parser.add_argument("--merge", action="store_true", help="the merged model, in float32, instead of the adapter")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--base", metavar="ORG/NAME", help="hub id of the base, where the base is a folder")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.run.push import push

    url = push(options.run_dir, options.repo, merge=options.merge, private=options.private, base=options.base)
    answer(options, {"url": url, "merged": options.merge}, lambda: print(url))
