"""`raylora init`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from raylora.cli._output import add_json, answer
from raylora.errors import UserError

HELP = "ask a few questions and write a spec.yaml with comments"
_QUESTIONS = {
    "model": ("Base model (alias, folder or hub id)", "smollm2-135m"),
    "data": ("Data (file, glob, folder or hub id; empty for a task that makes its own)", ""),
    "task": ("Task (`raylora tasks` lists them)", "instruct"),
    "budget": ("How long will you wait for everything (such as 20m, 6h)", "1h"),
}


# Which question is asked again where a check refuses a field.
_ASKED_BY = {"model": "model", "task.path": "data", "task.train": "data", "task.name": "task", "budget": "budget"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="spec.yaml", metavar="SPEC.yaml", help="default: spec.yaml")
    for name, (what, default) in _QUESTIONS.items():
        parser.add_argument(f"--{name}", help=f"{what}; default: {default or 'none'}")
    parser.add_argument(
        "--from",
        dest="present",
        metavar="FILE",
        help="compare with how you train now: an Axolotl or LLaMA-Factory YAML, or an adapter_config.json",
    )
    parser.add_argument("-y", "--yes", action="store_true", help="ask nothing: flags and defaults")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.run.checks import check_world
    from raylora.spec import from_dict
    from raylora.spec.paths import writable_file
    from raylora.spec.text import parse_value
    from raylora.spec.written import written

    file = writable_file(options.file, "SPEC.yaml")  # first: answers are work too
    if file.exists() and not options.force:
        raise UserError.at("SPEC.yaml", f"{file} is there already; give another name, or --force", value=str(file))
    answers = {name: getattr(options, name) for name in _QUESTIONS}
    present = _present(options.present)
    answers["model"] = answers["model"] or present.get("model")
    answers["data"] = answers["data"] or present.get("task", {}).get("path")
    asking = not options.yes and sys.stdin.isatty()
    for name, (what, default) in _QUESTIONS.items():
        if answers[name] is None:
            if name == "data" and answers["task"] not in (None, "instruct"):
                default = ""
            try:
                answers[name] = _ask(what, default) if asking else default
            except EOFError:  # as many enter keys as there are questions
                print()
                answers[name] = default
    if not (options.yes or asking or answers["data"]) and answers["task"] == "instruct":
        raise UserError.at("--data", "missing; as the input is no terminal nothing is asked: give it with the rest")
    while True:
        try:
            text = written(**answers, file=str(file), present=present)
            # What is written can be run: the same checks as `tune` makes.
            check_world(from_dict(parse_value(text)))
            break
        except UserError as error:
            again = _ASKED_BY.get(error.field or "") if asking else None
            if again is None:
                raise
            print(f"raylora: {error}", file=sys.stderr)
            try:
                answers[again] = _ask(*_QUESTIONS[again])
            except EOFError:
                raise error from None
    file.write_text(text, encoding="utf-8")
    told = f"{file}: written; `raylora plan {file}` tells what it will do, `raylora tune {file}` does it"
    answer(options, {"file": str(file)}, lambda: print(told))


def _present(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    from raylora.run.recipes.reading import recipe_from

    return recipe_from(file)


def _ask(what: str, default: str) -> str:
    """A line from the terminal; empty is the default. Raises EOFError where the input has ended."""
    return input(f"{what}{f' [{default}]' if default else ''}: ").strip() or default
