"""`raylora evaluate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.cli._asked import spec_and_changes
from raylora.cli._output import add_json, add_quiet, add_unsafe, answer, at_least_one, listed, written
from raylora.errors import UserError

if TYPE_CHECKING:
    from raylora.run.evaluate import Evaluation

HELP = "score an adapter, a run or a model as the final stage would"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="ADAPTER|MODEL|RUN_DIR", help="adapter, model, or run: folder, hub id, alias")
    parser.add_argument("spec", nargs="?", metavar="SPEC.yaml", help="whose task says which rows and how")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="changes to the spec")
    parser.add_argument(
        "--data",
        action="append",
        metavar="[NAME=]PATH",
        help="rows: file, glob, folder, URL or hub id; several make several test sets",
    )
    parser.add_argument("--metrics", metavar="A,B,..", help="`raylora metrics` lists them; or YAML, as in task.metrics")
    parser.add_argument("--task", metavar="NAME", help="default: the run's, or instruct, rows of your own (task.name)")
    parser.add_argument("--split", metavar="NAME", help="train, validation, test or a part such as test[:10%%]")
    parser.add_argument("--rows", type=int, metavar="N", help="at most so many rows, drawn by a constant seed")
    parser.add_argument("--base", metavar="MODEL", help="base model of the adapter, instead of the one that it names")
    parser.add_argument("--answers", metavar="FILE.jsonl", help="each row's prompt, answer, completion and scores")
    parser.add_argument(
        "--engine", choices=("transformers", "vllm"), help="who writes the answers (evaluate.engine); default: the host"
    )
    add_quiet(parser)
    add_unsafe(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.run.evaluate import evaluate
    from raylora.spec.paths import writable_file
    from raylora.spec.text import parse_override, read_yaml
    from raylora.tasks.sandbox import unsafe_code

    at_least_one(options, "rows")
    spec, overrides = spec_and_changes(options)
    changes = {} if options.task is None else {"task.name": options.task}
    changes |= {} if options.engine is None else {"evaluate.engine": options.engine}
    changes |= {} if options.metrics is None else {"task.metrics": _metrics(options.metrics)}
    changes |= dict(parse_override(override) for override in overrides)
    if options.answers is not None:  # first: scoring takes long
        writable_file(options.answers, "--answers")
    with unsafe_code(options.unsafe_code):
        found = evaluate(
            options.target,
            spec=None if spec is None else read_yaml(Path(spec)),
            data=options.data or (),
            changes=changes,
            split=options.split,
            rows=options.rows,
            base=options.base,
            quiet=options.quiet,
        )
    if options.answers is not None:
        with written("--answers", options.answers) as file:
            lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in found.answers]
            file.write_text("".join(lines), encoding="utf-8")
    answer(options, found.to_dict(), lambda: show(found))


def _metrics(text: str) -> object:
    """Names separated by commas, or YAML where a metric has options."""
    import yaml

    from raylora.spec.text import parse_value

    if not any(mark in text for mark in "{[:"):
        return listed(text)
    try:
        return parse_value(text)
    except yaml.YAMLError:
        raise UserError.at(
            "--metrics",
            f"{text}; allowed: names separated by commas, or YAML such as '[exact, {{number: {{mark: X}}}}]'",
            value=text,
        ) from None


def show(found: Evaluation) -> None:
    """Each metric of each set, a row each."""
    from raylora.cli._output import print_table

    rows = [
        [name, str(one.rows), figure.replace("validation_loss", "loss"), *map(_told, pair)]
        for name, one in found.sets.items()
        for figure, pair in one.figures.items()
    ]
    if len(found.sets) > 1:
        rows.append(["mean of the sets", "", found.metric, _told(found.value), _told(found.error)])
    print_table(["set", "rows", "metric", "value", "± error"], rows)


def _told(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
