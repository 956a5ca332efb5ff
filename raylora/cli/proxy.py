"""`raylora proxy`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylora.cli._output import add_json, add_quiet, add_spec, add_unsafe, answer, listed, print_table
from raylora.errors import UserError

HELP = "how well a part of the rows foretells which recipe is best on all of them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser)
    parser.add_argument(
        "--fractions",
        default="0.01,0.05,0.1,1",
        metavar="F,F",
        help="of the train rows; all are compared with the largest (default 0.01,0.05,0.1,1)",
    )
    parser.add_argument("--recipes", type=int, default=12, metavar="N", help="drawn from the space (default 12)")
    parser.add_argument("--select", default="random", metavar="A,B", help="random, tsds, length, loss (default random)")
    parser.add_argument("--plot", metavar="FILE", help="default: proxy.svg in the measurement's folder")
    add_quiet(parser)
    add_unsafe(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.reports.plots import check_plot
    from raylora.run.checks import load_checked
    from raylora.run.proxy.measure import measure_proxies
    from raylora.tasks.sandbox import unsafe_code

    fractions = _fractions(options.fractions)
    if options.plot:
        check_plot(options.plot, "--plot")
    with unsafe_code(options.unsafe_code):
        spec = load_checked(options.spec, options.overrides)
        folder, figures = measure_proxies(
            spec, fractions, options.recipes, listed(options.select) or [], quiet=options.quiet
        )
    answer(options, {"folder": str(folder), **figures}, lambda: _show(options, folder, figures))
    if options.json == "-" and options.plot:
        _plot(options, folder, figures)


def _fractions(text: str) -> list[float]:
    try:
        return [float(part) for part in listed(text) or []]
    except ValueError:
        raise UserError.at("--fractions", f"{text}; allowed: numbers separated by commas", value=text) from None


def _show(options: argparse.Namespace, folder: Path, figures: Mapping[str, Any]) -> None:
    from raylora.reports.proxy import lines, table

    print_table(*table(figures))
    for line in lines(figures):
        print(line)
    print(f"folder: {folder}")
    print(_plot(options, folder, figures))


def _plot(options: argparse.Namespace, folder: Path, figures: Mapping[str, Any]) -> str:
    """Where nobody asked for a plot, its absence is no error."""
    from importlib.util import find_spec

    from raylora.reports.proxy import plot

    if not options.plot and find_spec("matplotlib") is None:
        return "no plot: install the extra `report`"
    return f"plot: {plot(figures, options.plot or folder / 'proxy.svg')}"
