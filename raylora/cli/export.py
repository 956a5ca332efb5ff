"""`raylora export`."""

from __future__ import annotations

import argparse
import sys

from raylora.cli._output import add_json, answer

HELP = "the adapter (PEFT), the merged model (transformers), or the recipe for another toolkit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("--to", required=True, metavar="DIR", help="a new or empty folder")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--merge", action="store_true", help="write the merged model, in float32")
    what.add_argument(
        "--recipe",
        metavar="TOOLKIT",
        help="configuration and rows for trl, llamafactory, axolotl, swift, unsloth, peft",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    if options.recipe is None:
        from raylora.api.tuning import export

        folder = export(options.run_dir, options.to, merge=options.merge)
        answer(options, {"folder": str(folder), "merged": options.merge}, lambda: print(folder))
        return
    from raylora.run.recipes.export import export_recipe

    folder, notes = export_recipe(options.run_dir, options.recipe, options.to)
    for note in notes:
        print(f"{options.recipe}: {note}", file=sys.stderr)
    told = {"folder": str(folder), "recipe": options.recipe, "notes": notes}
    answer(options, told, lambda: print(folder))
