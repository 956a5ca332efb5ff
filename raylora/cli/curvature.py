"""`raylora curvature`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylora.cli._output import (
    add_json,
    add_quiet,
    add_spec,
    answer,
    at_least_one,
    listed,
    print_table,
    whole_numbers,
)
from raylora.errors import UserError

HELP = "learning rates of variants relative to lora's, before any trial"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser, "a spec, or a file of figures from --json")
    parser.add_argument("--variants", default="", metavar="A,B", help="names (default: those of the spec's space)")
    parser.add_argument("--layers", metavar="N,M", help="layer numbers (default: 4 spread over the depth)")
    parser.add_argument("--types", metavar="A,B", help="matrix types (default: q_proj, or the model's first)")
    parser.add_argument("--tokens", type=int, default=512, help="tokens in the fixed batch (default 512)")
    parser.add_argument("--iterations", type=int, default=50, help="most products per block (default 50)")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of the eigenvalue (default 1e-3)")
    parser.add_argument("--sweep", metavar="SOURCE", help="compare with a run's folder or a JSON of records")
    parser.add_argument("--plot", metavar="FILE", help="default: the name of --json, or curvature.svg")
    add_quiet(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.curvature.figures import read_figures
    from raylora.reports.curvature import plot
    from raylora.reports.plots import check_plot

    at_least_one(options, "tokens", "iterations")
    if not 0 < options.tolerance < 1:
        raise UserError.at("--tolerance", f"{options.tolerance}; allowed: above 0, below 1", value=options.tolerance)
    if options.plot:  # first: measuring takes long
        check_plot(options.plot, "--plot")
    if not options.spec.endswith(".json"):
        figures = _measure(options)
    elif options.variants or options.layers or options.types or options.overrides:
        raise UserError.at("SPEC", f"{options.spec} holds figures; give the spec to measure others", value=options.spec)
    else:
        figures = read_figures(options.spec)
    answer(options, figures, lambda: _show(options, figures))
    if options.json == "-" and options.plot:
        plot(figures, options.plot)


def _measure(options: argparse.Namespace) -> dict[str, object]:
    from raylora.curvature import measure as curvature
    from raylora.reports.sweep import read_sweep
    from raylora.run.checks import load_checked

    if options.sweep:
        read_sweep(options.sweep)  # first: measuring takes long
    settings = curvature.Settings(
        variants=listed(options.variants) or (),
        layers=whole_numbers("--layers", options.layers),
        types=listed(options.types),
        tokens=options.tokens,
        iterations=options.iterations,
        tolerance=options.tolerance,
    )
    return curvature.curvature(load_checked(options.spec, options.overrides), settings, quiet=options.quiet)


def _show(options: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    from raylora.reports.curvature import compare, table

    compared = compare(figures, options.sweep) if options.sweep else None
    print_table(*table(figures, compared))
    if compared is not None:
        print(f"rank correlation of predicted and measured rates: {compared['rank_correlation']:.2f}", end=" ")
        print(f"over {compared['variants']} variants")
    _plot(options, figures)


def _plot(options: argparse.Namespace, figures: Mapping[str, object]) -> None:
    """Where nobody asked for a plot, its absence is no error."""
    from importlib.util import find_spec

    from raylora.reports.curvature import plot

    if not options.plot and find_spec("matplotlib") is None:
        print("no plot: install the extra `report`")
        return
    stem = options.json or (options.spec if options.spec.endswith(".json") else "curvature.json")
    print(f"plot: {plot(figures, options.plot or Path(stem).with_suffix('.svg'))}")
