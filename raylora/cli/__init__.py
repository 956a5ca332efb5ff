"""`raylora ...`: the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clusters.errors import ClusterError
from raylora import __version__
from raylora.cli.bench import add_bench
from raylora.cli.output import at_least_one, print_table, unfolded, write_json
from raylora.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when what was asked is done, 2 for a user's mistake, 130 after Ctrl-C, else 1."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except (UserError, ClusterError) as error:
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

    curvature = commands.add_parser("curvature", help="learning rates of variants relative to lora's, before any trial")
    curvature.add_argument("spec", metavar="SPEC.yaml", help="a spec, or a file of figures from --json")
    curvature.add_argument("overrides", nargs="*", metavar="dotted.key=value")
    curvature.add_argument("--variants", default="", metavar="A,B", help="names (default: those of the spec's space)")
    curvature.add_argument("--layers", metavar="N,M", help="layer numbers (default: 4 spread over the depth)")
    curvature.add_argument("--types", metavar="A,B", help="matrix types (default: q_proj, or the model's first)")
    curvature.add_argument("--tokens", type=int, default=512, help="tokens in the fixed batch (default 512)")
    curvature.add_argument("--iterations", type=int, default=50, help="most products per block (default 50)")
    curvature.add_argument("--tolerance", type=float, default=1e-3, help="of the eigenvalue (default 1e-3)")
    curvature.add_argument("--sweep", metavar="SOURCE", help="compare with a run's folder or a JSON of records")
    curvature.add_argument("--plot", metavar="FILE", help="default: the name of --json, or curvature.svg")
    curvature.add_argument("--json", metavar="FILE")
    curvature.add_argument("--quiet", action="store_true")
    curvature.set_defaults(run=_curvature)

    report = commands.add_parser("report", help="a learning-rate sweep as table, plot and recorded grid")
    report.add_argument("sources", nargs="+", metavar="SOURCE", help="runs' folders, or a JSON of records")
    report.add_argument("--to", required=True, metavar="STEM", help="writes STEM.md, STEM.svg, STEM.records.json")
    report.add_argument("--grid", metavar="FILE.csv", help="also as a recorded grid for `raylora bench searchers`")
    report.set_defaults(run=_report)

    compare = commands.add_parser("compare", help="variants at their own best rates, over tasks and seeds")
    compare.add_argument("sources", nargs="+", metavar="SPEC.yaml|RECORDS.json|dotted.key=value")
    compare.add_argument("--seeds", default="0,1,2", metavar="A,B", help="of the specs (default 0,1,2)")
    compare.add_argument("--to", required=True, metavar="STEM", help="writes STEM.records.json, STEM.md and STEM.svg")
    compare.add_argument("--quiet", action="store_true")
    compare.set_defaults(run=_compare)

    strategies = commands.add_parser("strategies", help="which slices LeLoRA chose over training")
    strategies.add_argument("source", metavar="SOURCE", help="a run's folder, or a trial's Parquet in it")
    strategies.add_argument("--to", required=True, metavar="STEM", help="writes STEM.csv and STEM.svg")
    strategies.add_argument("--parts", type=int, default=8, help="parts that training is cut into (default 8)")
    strategies.set_defaults(run=_strategies)

    add_bench(commands)
    return parser


def _tune(options: argparse.Namespace) -> int:
    from raylora.run import experiment
    from raylora.run.checks import load_checked

    spec = load_checked(options.spec, options.overrides)
    summary = experiment.tune(spec, quiet=options.quiet)
    show_summary(summary)
    return 0


def _resume(options: argparse.Namespace) -> int:
    from raylora.run import experiment

    show_summary(experiment.resume(options.run_dir, quiet=options.quiet))
    return 0


def show_summary(summary: Mapping[str, Any]) -> None:
    """The answer: a table of base, default and found recipe, and where the files lie."""
    from rich.console import Console
    from rich.table import Table

    from raylora.progress import describe

    console = unfolded(Console(highlight=False, soft_wrap=True))
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
    console.print(table)
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
    from raylora.run.results import export

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

    print_table(
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

    print_table(["searcher", "what it is"], [[name, cls.summary] for name, cls in SEARCHERS.classes().items()])
    return 0


def _tasks(options: argparse.Namespace) -> int:
    from raylora.tasks import available

    for name in available():
        print(name)
    return 0


def _submit(options: argparse.Namespace) -> int:
    from clusters.submit import submit

    return submit(options.spec, options.overrides, address=options.address, working_dir=options.working_dir)


def _curvature(options: argparse.Namespace) -> int:
    from raylora.curvature.figures import read_figures
    from raylora.reports.curvature import compare, table
    from raylora.reports.sweep import read_sweep

    at_least_one(options, "tokens", "iterations")
    if not 0 < options.tolerance < 1:
        raise UserError(f"--tolerance: {options.tolerance}; allowed: above 0, below 1")
    if options.spec.endswith(".json"):
        if options.variants or options.layers or options.types or options.overrides:
            raise UserError(f"SPEC: {options.spec} holds figures; give the spec to measure others")
        figures = read_figures(options.spec)
    else:
        from raylora.curvature import measure as curvature
        from raylora.run.checks import load_checked

        if options.sweep:
            read_sweep(options.sweep)

        settings = curvature.Settings(
            variants=_listed(options.variants) or (),
            layers=_numbers("--layers", options.layers),
            types=_listed(options.types),
            tokens=options.tokens,
            iterations=options.iterations,
            tolerance=options.tolerance,
        )
        figures = curvature.curvature(load_checked(options.spec, options.overrides), settings, quiet=options.quiet)
    write_json(options.json, figures)  # first: what was measured is not lost to what comes after
    compared = compare(figures, options.sweep) if options.sweep else None
    print_table(*table(figures, compared))
    if compared is not None:
        print(f"rank correlation of predicted and measured rates: {compared['rank_correlation']:.2f}", end=" ")
        print(f"over {compared['variants']} variants")
    _plot_curvature(options, figures)
    return 0


def _plot_curvature(options: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Where nobody asked for a plot, its absence is no error."""
    from importlib.util import find_spec

    from raylora.reports.curvature import plot

    if not options.plot and find_spec("matplotlib") is None:
        print("no plot: install the extra `report`")
        return
    stem = options.json or (options.spec if options.spec.endswith(".json") else "curvature.json")
    print(f"plot: {plot(figures, options.plot or Path(stem).with_suffix('.svg'))}")


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _numbers(option: str, text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: allowed: whole numbers, separated by commas") from None


def _report(options: argparse.Namespace) -> int:
    from raylora.reports.sweep import merge, read_sweep, write_report

    for path in write_report(merge([read_sweep(source) for source in options.sources]), options.to, options.grid):
        print(path)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from raylora.reports.compare import merged, read_records, run_specs, write_comparison
    from raylora.spec.paths import output_stem

    specs = [source for source in options.sources if source.endswith((".yaml", ".yml"))]
    overrides = [source for source in options.sources if source not in specs and "=" in source]
    files = [source for source in options.sources if source not in specs and source not in overrides]
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        raise UserError(f"--seeds: {options.seeds}; allowed: whole numbers separated by commas") from None
    records = [record for file in files for record in read_records(file)]
    output_stem(options.to)  # first: training takes long
    records += run_specs(specs, overrides, seeds, quiet=options.quiet)
    if not records:
        raise UserError("SOURCE: nothing but overrides; give a spec (.yaml) or a JSON of records")
    for path in write_comparison(merged(records), options.to):
        print(path)
    return 0


def _strategies(options: argparse.Namespace) -> int:
    from raylora.reports.strategies import read_strategies, write_strategies

    at_least_one(options, "parts")
    for path in write_strategies(read_strategies(options.source), options.to, options.parts):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
