"""`raylora ...`: the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from raylora import __version__
from raylora.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when what was asked is done, 2 for a user's mistake, 130 after Ctrl-C, else 1."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except UserError as error:
        print(f"raylora: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("raylora: interrupted; `raylora resume RUN_DIR` goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raylora", description="Finds the LoRA recipe for a model and a task.")
    parser.add_argument("--version", action="version", version=f"raylora {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    tune = commands.add_parser("tune", help="search, retrain the best recipe, write the adapter")
    tune.add_argument("spec", metavar="SPEC.yaml")
    tune.add_argument("overrides", nargs="*", metavar="dotted.key=value")
    tune.add_argument("--quiet", action="store_true", help="only the final table")
    tune.set_defaults(run=_tune)

    resume = commands.add_parser("resume", help="finish an interrupted run")
    resume.add_argument("run_dir", metavar="RUN_DIR")
    resume.add_argument("--quiet", action="store_true")
    resume.set_defaults(run=_resume)

    export = commands.add_parser("export", help="the adapter (PEFT) or the merged model (transformers)")
    export.add_argument("run_dir", metavar="RUN_DIR")
    export.add_argument("--to", required=True, metavar="DIR")
    export.add_argument("--merge", action="store_true", help="write the merged model, in float32")
    export.set_defaults(run=_export)

    models = commands.add_parser("models", help="list or fetch base models")
    actions = models.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="bundled aliases and where they lie")
    listing.set_defaults(run=_models_list)
    pull = actions.add_parser("pull", help="fetch a model into the cache")
    pull.add_argument("name", metavar="NAME")
    pull.add_argument("--quiet", action="store_true")
    pull.set_defaults(run=_models_pull)

    for name, show in (("variants", _variants), ("searchers", _searchers), ("tasks", _tasks)):
        commands.add_parser(name, help=f"list the {name}").set_defaults(run=show)

    submit = commands.add_parser("submit", help="run a spec as a job on a Ray cluster")
    submit.add_argument("spec", metavar="SPEC.yaml")
    submit.add_argument("overrides", nargs="*", metavar="dotted.key=value")
    submit.add_argument("--address", required=True, metavar="URL", help="for example http://head:8265")
    submit.add_argument("--working-dir", default=".", metavar="DIR")
    submit.set_defaults(run=_submit)

    bench = commands.add_parser("bench", help="measure raylora on this machine")
    kinds = bench.add_subparsers(required=True, metavar="WHAT")
    overhead = kinds.add_parser("overhead", help="fixed cost per trial, against Tune + TorchTrainer")
    overhead.add_argument("--json", metavar="FILE")
    overhead.add_argument("--trials", type=int, default=50, help="hosted trials (default 50)")
    overhead.add_argument("--nest-trials", type=int, default=3, help="trials of the plain nest (default 3)")
    overhead.add_argument("--quiet", action="store_true")
    overhead.set_defaults(run=_bench_overhead)

    costs = kinds.add_parser("variants", help="step time, memory, size and attach time of variants, against lora")
    costs.add_argument("--model", required=True, metavar="NAME", help="alias, folder or hub id")
    costs.add_argument("--variants", default="", metavar="A,B", help="names, separated by commas (default: all)")
    costs.add_argument("--rank", type=int, default=8)
    costs.add_argument("--rows", type=int, default=8, help="rows per step (default 8)")
    costs.add_argument("--length", type=int, default=128, help="tokens per row (default 128)")
    costs.add_argument("--repetitions", type=int, default=5, help="turns of each variant (default 5)")
    costs.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of the base")
    costs.add_argument("--json", metavar="FILE")
    costs.add_argument("--quiet", action="store_true")
    costs.set_defaults(run=_bench_variants)
    return parser


def _tune(options: argparse.Namespace) -> int:
    from raylora import experiment
    from raylora.spec import load

    spec = load(options.spec, options.overrides)
    summary = experiment.tune(spec, quiet=options.quiet)
    show_summary(summary)
    return 0


def _resume(options: argparse.Namespace) -> int:
    from raylora import experiment

    show_summary(experiment.resume(options.run_dir, quiet=options.quiet))
    return 0


def show_summary(summary: Mapping[str, Any]) -> None:
    """The answer: a table of base, default and found recipe, and where the files lie."""
    from rich.console import Console
    from rich.table import Table

    from raylora.progress import describe

    console = Console(highlight=False, soft_wrap=True)
    metric = summary["metric"]
    table = Table(title=f"{metric} after {summary['trials']} trials, {summary['wall_s']:.0f} s")
    for column in ("model", "recipe", "validation", "test"):
        table.add_column(column, justify="left" if column in ("model", "recipe") else "right", no_wrap=True)
    names = {"base": "base, untouched", "default": "default recipe", "best": "found recipe"}
    for label, name in names.items():
        if label in summary:
            entry = summary[label]
            recipe = describe({k: v for k, v in entry.get("config", {}).items() if k != "alpha_ratio"})
            table.add_row(name, recipe, _score(entry, "validation"), _score(entry, "test"))
    # A recipe cut off by a narrow terminal could not be copied.
    console.print(table, width=max(console.width, 160) if not console.is_terminal else None)
    folder = summary.get("run_dir")
    if folder:
        for file, what in (
            ("best.yaml", "the recipe, ready for `raylora tune`"),
            ("adapter/", "PEFT folder"),
            ("trials.csv", "every trial"),
            ("summary.json", "this table"),
        ):
            console.print(f"  {folder}/{file}  ({what})")


def _score(entry: Mapping[str, Any], split: str) -> str:
    if split not in entry:
        return ""
    error = entry.get(f"{split}_se")
    return f"{entry[split]:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _export(options: argparse.Namespace) -> int:
    from raylora.results import export

    print(export(options.run_dir, options.to, merge=options.merge))
    return 0


def _models_list(options: argparse.Namespace) -> int:
    from raylora.models import list_models

    for row in list_models():
        print(json.dumps(row) if not isinstance(row, Mapping) else "  ".join(str(v) for v in row.values()))
    return 0


def _models_pull(options: argparse.Namespace) -> int:
    from raylora.models import resolve

    print(resolve(options.name, quiet=options.quiet))
    return 0


def _variants(options: argparse.Namespace) -> int:
    from trainables.variants import describe

    _print_table(
        ["variant", "what it is", "paper", "trained per matrix (m x n)", "exported as"],
        [[row["name"], row["summary"], row["paper"], row["parameters"], _exported(row)] for row in describe()],
    )
    return 0


def _exported(row: Mapping[str, Any]) -> str:
    if row["exports_lora"]:
        return "plain LoRA"
    return "merged model" if row["saves"] == "merged" else "PEFT's own form"


def _searchers(options: argparse.Namespace) -> int:
    from searchers import SEARCHERS

    _print_table(["searcher", "what it is"], [[name, cls.summary] for name, cls in sorted(SEARCHERS.items())])
    return 0


def _tasks(options: argparse.Namespace) -> int:
    from raylora.tasks import available

    for name in available():
        print(name)
    return 0


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    # In a file or a pipe a row stays one line.
    console.print(table, markup=False, width=console.width if console.is_terminal else 200)


def _submit(options: argparse.Namespace) -> int:
    from clusters.submit import submit

    return submit(options.spec, options.overrides, address=options.address, working_dir=options.working_dir)


def _bench_overhead(options: argparse.Namespace) -> int:
    from raylora.bench.overhead import bench_overhead

    figures = bench_overhead(trials=options.trials, nest_trials=options.nest_trials, quiet=options.quiet)
    _print_table(["figure", "value"], [[name, f"{value:g}"] for name, value in figures.items()])
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=2)
    return 0


def _bench_variants(options: argparse.Namespace) -> int:
    from raylora.bench.variants import bench_variants

    figures = bench_variants(
        options.model,
        variants=[name for name in options.variants.split(",") if name],
        rank=options.rank,
        rows=options.rows,
        length=options.length,
        repetitions=options.repetitions,
        dtype=options.dtype,
        quiet=options.quiet,
    )
    _print_table(
        ["variant", "step time / lora", "peak memory / lora", "trainable", "attach, s"],
        [
            [name, f"{f['step_time']:.2f}", f"{f['peak_memory']:.2f}", f"{f['trainable']:,}", f"{f['attach_s']:.2f}"]
            for name, f in figures["variants"].items()
        ],
    )
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
