"""`raylora bench ...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from raylora.cli.output import at_least_one, print_table, write_json
from raylora.errors import UserError


def add_bench(commands: Any) -> None:
    """Adds `bench` and what it measures to the commands (a subparsers action of argparse)."""
    bench = commands.add_parser("bench", help="measure raylora on this machine")
    kinds = bench.add_subparsers(required=True, metavar="WHAT")
    overhead = kinds.add_parser("overhead", help="fixed cost per trial, against Tune + TorchTrainer")
    overhead.add_argument("--json", metavar="FILE")
    overhead.add_argument("--trials", type=int, default=50, help="hosted trials (default 50)")
    overhead.add_argument("--nest-trials", type=int, default=3, help="trials of the plain nest (default 3)")
    overhead.add_argument("--quiet", action="store_true")
    overhead.set_defaults(run=_bench_overhead)

    grids = kinds.add_parser("searchers", help="searchers on recorded grids of trained configurations")
    grids.add_argument("grids", nargs="+", metavar="GRID.csv", help="a CSV, or the name of a bundled grid")
    grids.add_argument("--searchers", default="random,tpe,gp,language", metavar="A,B:preset,option=value,...")
    grids.add_argument("--seeds", type=int, default=20)
    grids.add_argument("--trials", type=int, default=30)
    grids.add_argument("--prior-shift", type=float, default=1.0, metavar="F", help="put knowledge's rate off by F")
    grids.add_argument("--llm", default="smollm2-135m", help="language model of the language searcher")
    grids.add_argument("--jobs", type=int, metavar="N", help="processes side by side (default: one per core)")
    grids.add_argument("--json", metavar="FILE")
    grids.add_argument("--quiet", action="store_true")
    grids.set_defaults(run=_bench_searchers)

    costs = kinds.add_parser("variants", help="step time, memory, size and attach time of variants, against lora")
    costs.add_argument("--model", required=True, metavar="NAME", help="alias, folder or hub id")
    costs.add_argument("--variants", default="", metavar="A,B:option=value", help="names, with options (default: all)")
    costs.add_argument("--rank", type=int, default=8)
    costs.add_argument("--rows", type=int, default=8, help="rows per step (default 8)")
    costs.add_argument("--length", type=int, default=128, help="tokens per row (default 128)")
    costs.add_argument("--repetitions", type=int, default=5, help="turns of each variant (default 5)")
    costs.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of the base")
    costs.add_argument("--json", metavar="FILE")
    costs.add_argument("--quiet", action="store_true")
    costs.set_defaults(run=_bench_variants)

    curves = kinds.add_parser("convergence", help="loss curves of variants, each at its best learning rate")
    curves.add_argument("spec", metavar="SPEC.yaml", help="model, task, training; first values of its space")
    curves.add_argument("overrides", nargs="*", metavar="dotted.key=value")
    curves.add_argument("--to", required=True, metavar="FOLDER", help="one JSON per run; those there are kept")
    curves.add_argument("--arms", required=True, metavar="A,B:option=value@R/R/R", help="with rates of their own")
    curves.add_argument("--rates", default="0.001,0.002,0.004", metavar="R,R,R", help="of arms without their own")
    curves.add_argument("--seeds", type=int, default=3, help="runs at the best rate (default 3)")
    curves.add_argument("--checks", type=int, default=8, help="validation losses taken during a run (default 8)")
    curves.add_argument("--quiet", action="store_true")
    curves.set_defaults(run=_bench_convergence)

    drawn = kinds.add_parser("convergence-report", help="table and plot of the runs of `bench convergence`")
    drawn.add_argument("folder", metavar="FOLDER")
    drawn.add_argument("--to", required=True, metavar="STEM", help="writes STEM.md and STEM.svg")
    drawn.set_defaults(run=_bench_convergence_report)

    suggest = kinds.add_parser("suggest", help="one iteration of the language surrogate over 45,360 configurations")
    suggest.add_argument("--model", default="smollm2-135m")
    suggest.add_argument("--observed", type=int, default=30, help="observations to fit (default 30)")
    suggest.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: what the hardware multiplies best")
    suggest.add_argument("--sample", type=int, default=96, help="prompts that the naive way is measured on")
    suggest.add_argument("--check", type=int, default=200, help="configurations compared in float32")
    suggest.add_argument("--json", metavar="FILE")
    suggest.add_argument("--quiet", action="store_true")
    suggest.set_defaults(run=_bench_suggest)


def _bench_overhead(options: argparse.Namespace) -> int:
    from raylora.bench.overhead import bench_overhead

    figures = bench_overhead(trials=options.trials, nest_trials=options.nest_trials, quiet=options.quiet)
    print_table(["figure", "value"], [[name, f"{value:g}"] for name, value in figures.items()])
    write_json(options.json, figures)
    return 0


def _bench_searchers(options: argparse.Namespace) -> int:
    from raylora.bench.searchers import REPORTED, bench_searchers

    at_least_one(options, "seeds", "trials", "jobs")
    if not options.prior_shift > 0:
        raise UserError(f"--prior-shift: {options.prior_shift}; allowed: a factor above 0")
    figures = bench_searchers(
        options.grids,
        options.searchers,
        seeds=options.seeds,
        trials=options.trials,
        prior_shift=options.prior_shift,
        llm=options.llm,
        jobs=options.jobs,
        quiet=options.quiet,
    )
    at = [str(t) for t in REPORTED if t <= options.trials]
    rows = []
    for label, found in figures["searchers"].items():
        for grid, part in [("all", found), *(found["grids"].items() if len(options.grids) > 1 else ())]:
            error = "" if part["auc_se"] is None else f" ± {part['auc_se']:.3f}"
            wall = f"{found['wall_s']:.0f} s" if grid == "all" else ""
            rows.append([label, grid, f"{part['auc']:.3f}{error}", *(f"{part['regret'][t]:.3f}" for t in at), wall])
    print_table(["searcher", "grid", "auc", *(f"regret@{t}" for t in at), "wall"], rows)
    write_json(options.json, figures)
    return 0


def _bench_variants(options: argparse.Namespace) -> int:
    from raylora.bench.variants import bench_variants

    at_least_one(options, "rank", "rows", "repetitions")
    if options.length < 4:
        raise UserError(f"--length: {options.length}; allowed: at least 4, a quarter of which is completion")
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
    print_table(
        [
            "variant",
            "step time / lora",
            "peak memory / lora",
            "trainable",
            "attach, s",
            "adapter",
            "hypernetwork",
            "its time / lora",
            "its Gmac a step",
            "optimizer, MB",
        ],
        [
            [
                name,
                f"{f['step_time']:.2f}",
                f"{f['peak_memory']:.2f}",
                f"{f['trainable']:,}",
                f"{f['attach_s']:.2f}",
                f"{f['adapter']:,}",
                f"{f['hypernetwork']:,}",
                f"{f['hypernetwork_time']:.2f}",
                f"{f['hypernetwork_gmac']:.1f}",
                f"{f['optimizer_mb']:.1f}",
            ]
            for name, f in figures["variants"].items()
        ],
    )
    write_json(options.json, figures)
    return 0


def _bench_convergence(options: argparse.Namespace) -> int:
    from raylora.bench.arms import parse_arm
    from raylora.bench.convergence import bench_convergence
    from raylora.run.checks import load_checked

    at_least_one(options, "seeds")
    if options.checks < 0:
        raise UserError(f"--checks: {options.checks}; allowed: 0 or more")
    common = _rates(options.rates.split(","))
    arms, rates = [], {}
    for text in filter(None, options.arms.split(",")):
        name, own, values = text.partition("@")
        try:
            arms.append(parse_arm(name))
        except UserError as error:
            raise UserError(f"--arms {error}") from None
        rates[arms[-1].label] = _rates(values.split("/")) if own else common
    spec = load_checked(options.spec, options.overrides)
    files = bench_convergence(
        spec, options.to, arms=arms, rates=rates, seeds=options.seeds, checks=options.checks, quiet=options.quiet
    )
    for path in files:
        print(path)
    return 0


def _rates(texts: Sequence[str]) -> list[float]:
    try:
        rates = [float(text) for text in texts]
    except ValueError:
        rates = []
    if not rates or min(rates) <= 0:
        raise UserError(f"--rates: {','.join(texts)}; allowed: numbers above 0")
    return rates


def _bench_convergence_report(options: argparse.Namespace) -> int:
    from raylora.bench.convergence_report import write_convergence

    for path in write_convergence(options.folder, options.to):
        print(path)
    return 0


def _bench_suggest(options: argparse.Namespace) -> int:
    from raylora.bench.suggest import bench_suggest

    figures = bench_suggest(
        options.model,
        observed=options.observed,
        dtype=options.dtype,
        sample=options.sample,
        check=options.check,
        quiet=options.quiet,
    )
    print_table(["figure", "value"], [[name, f"{value:g}"] for name, value in figures.items()])
    write_json(options.json, figures)
    return 0
