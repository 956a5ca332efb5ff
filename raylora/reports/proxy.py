"""What `raylora proxy` shows of its figures: a table, lines, a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylora.reports.plots import load_pyplot, save_plot


def table(figures: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names, and a row per part of the rows, the reference last."""
    columns = ["rows", "chosen by", "samples", "recipes", "Pearson", "Spearman", "regret", "time"]
    rows = [
        [
            _part(one),
            one["select"],
            f"{one['samples']:,}",
            str(one["recipes"]),
            _correlation(one["pearson"]),
            _correlation(one["spearman"]),
            "-" if one["regret"] is None else f"{one['regret']:.4f}",
            "-" if one["time"] is None else f"{one['time']:.2f}",
        ]
        for one in figures["proxies"]
    ]
    whole = figures["reference"]
    return columns, [*rows, [_part(whole), "", f"{whole['samples']:,}", "", "1", "1", "0", "1"]]


def lines(figures: Mapping[str, Any]) -> list[str]:
    """What there is to say below the table."""
    whole = figures["reference"]
    told = [f"correlations of the validation {figures['metric']} with that on {_part(whole)} rows; 95 % by bootstrap"]
    if figures["chance"] is not None:
        told.append(
            f"regret: how much worse the recipe that is best on the part is on {_part(whole)} rows than the best "
            f"there; a recipe drawn at random: {figures['chance']:.4f}"
        )
    left = max((len(figures["recipes"]) - one["recipes"] for one in figures["proxies"]), default=0)
    if left:
        told.append(f"up to {left} of {len(figures['recipes'])} recipes are left out of a row: they failed there")
    return told


def _part(one: Mapping[str, Any]) -> str:
    return f"{100 * one['fraction']:g} % ({one['rows']:,})"


def _correlation(found: Mapping[str, float] | None) -> str:
    return "-" if found is None else f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def plot(figures: Mapping[str, Any], path: str | Path) -> Path:
    """Rank correlation and regret over the fraction of the rows, a line per selector.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written in that format.
    """
    pyplot = load_pyplot("--plot")
    path = Path(path).expanduser()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for number, name in enumerate(dict.fromkeys(one["select"] for one in figures["proxies"])):
        mine = [one for one in figures["proxies"] if one["select"] == name]
        style = {"marker": "os^Dv"[number % 5], "markersize": 4, "label": name}
        known = [one for one in mine if one["spearman"] is not None]
        values = [one["spearman"]["value"] for one in known]
        # A percentile interval need not hold the value itself.
        below = [max(0.0, value - one["spearman"]["low"]) for value, one in zip(values, known, strict=True)]
        above = [max(0.0, one["spearman"]["high"] - value) for value, one in zip(values, known, strict=True)]
        left.errorbar([one["fraction"] for one in known], values, [below, above], capsize=2, **style)
        known = [one for one in mine if one["regret"] is not None]
        right.plot([one["fraction"] for one in known], [one["regret"] for one in known], **style)
    if figures["chance"] is not None:
        right.axhline(figures["chance"], color="grey", linestyle="--", label="a recipe drawn at random")
    for axis, what in ((left, "Spearman's correlation"), (right, f"regret ({figures['metric']})")):
        axis.set_xscale("log")
        axis.set_xlabel("part of the train rows")
        axis.set_ylabel(what)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return save_plot(figure, path, "--plot")
