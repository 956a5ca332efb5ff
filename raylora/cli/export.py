"""`raylora export`."""

from __future__ import annotations

import argparse
import sys

from raylora.cli._output import add_json, answer
from raylora.errors import UserError

HELP = "the adapter (PEFT), the merged model (transformers, GGUF), or the recipe for another toolkit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("--to", required=True, metavar="DIR", help="a new or empty folder")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--format",
        choices=("peft", "merged", "gguf"),
        help="default: peft, the adapter; merged: the whole model, in float32; gguf: base and adapter for llama.cpp",
    )
    what.add_argument(
        "--recipe",
        metavar="TOOLKIT",
        help="configuration and rows for trl, llamafactory, axolotl, swift, unsloth, peft",
    )
    parser.add_argument("--merge", action="store_true", help="--format merged; with gguf: the merged model, one file")
    parser.add_argument(
        "--type", choices=("f32", "f16", "bf16", "q8_0"), help="of a GGUF's weights; default: as the base has them"
    )
    parser.add_argument(
        "--check", choices=("vllm", "llamacpp"), help="whether that program can have the adapter, before it is written"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    if options.recipe is None:
        _export(options)
        return
    from raylora.run.recipes.export import export_recipe

    for name in ("merge", "type", "check"):
        if getattr(options, name):
            raise UserError(f"--{name}: not with --recipe; leave one of them out", field=f"--{name}")
    folder, notes = export_recipe(options.run_dir, options.recipe, options.to)
    for note in notes:
        print(f"{options.recipe}: {note}", file=sys.stderr)
    told = {"folder": str(folder), "recipe": options.recipe, "notes": notes}
    answer(options, told, lambda: print(folder))


def _export(options: argparse.Namespace) -> None:
    from raylora.run.export import export

    notes: list[str] = []
    folder = export(
        options.run_dir,
        options.to,
        format=options.format,
        merge=options.merge,
        kind=options.type,
        check=options.check,
        say=notes.append,
    )
    for note in notes:
        print(f"export: {note}", file=sys.stderr)
    files = sorted(path.name for path in folder.iterdir())
    merged = "adapter_config.json" not in files and "adapter.gguf" not in files
    form = options.format or ("merged" if options.merge else "peft")
    told = {"folder": str(folder), "merged": merged, "format": form, "notes": notes}
    answer(options, told, lambda: print(folder))
