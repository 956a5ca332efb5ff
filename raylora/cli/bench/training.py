"""`raylora bench training`."""

from __future__ import annotations

import argparse
from pathlib import Path

from raylora.cli._output import add_json, add_quiet, answer_files, at_least_one
from raylora.errors import UserError

HELP = "searchers on real training: what is found for the samples trained on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "specs", nargs="+", metavar="SPEC.yaml", help="model, task, training, space; dotted.key=value changes them all"
    )
    parser.add_argument("--to", required=True, metavar="FOLDER", help="one JSON per search; what is there is kept")
    parser.add_argument("--searchers", default="language,gp,random", metavar="A,B:preset,option=value,...")
    parser.add_argument("--seeds", type=int, default=5, help="searches per task and searcher (default 5)")
    parser.add_argument("--trials", type=int, default=10, help="trials per search (default 10)")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.searchers import parse_searchers
    from raylora.bench.training import bench_training
    from raylora.run.checks import load_checked

    at_least_one(options, "seeds", "trials")
    searchers = parse_searchers(options.searchers)
    for entry in searchers:
        if entry.name == "stock":
            raise UserError.at(
                "--searchers", f"{entry.label}: on recorded grids only; choose another", value=entry.label
            )
    files = [text for text in options.specs if "=" not in text]
    changes = [text for text in options.specs if "=" in text]
    specs = {Path(file).stem: load_checked(file, changes) for file in files}
    if len(specs) < len(files) or not files:
        raise UserError.at("SPEC.yaml", "two of one name or none; allowed: specs of different names", value=files)
    found = bench_training(
        specs, options.to, searchers=searchers, seeds=options.seeds, trials=options.trials, quiet=options.quiet
    )
    answer_files(options, found)
