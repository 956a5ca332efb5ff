"""A run's answer on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.cli._output import unfolded


def show_summary(summary: Mapping[str, Any]) -> None:
    """The answer: a table of base, default and found recipe, and where the files lie."""
    from rich.console import Console
    from rich.table import Table

    from raylora.progress import describe
    from raylora.run.better import in_words

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
    sure = in_words(summary.get("better", {}))
    if sure:
        console.print(f"the found recipe is {sure}")
    leaked = summary.get("test_prompts_in_train")
    if leaked:
        console.print(f"{leaked} of {summary['test_rows']} test rows have a prompt that is also trained on")
    shown = [label for label in names if label in summary and "metrics" in summary[label]]
    if shown:
        console.print(_every_metric(summary, shown, names))
    if "budget" in summary:
        used, budget = summary["budget"]["used_s"], summary["budget"]["budget_s"]
        console.print(f"  {used:.0f} s of a budget of {budget:.0f} s used")
    folder = summary.get("run_dir")
    if folder:
        for file, what in (
            ("best.yaml", "the recipe, ready for `raylora tune`"),
            ("adapter/", "PEFT folder"),
            ("trials.csv", "every trial"),
            ("summary.json", "this table"),
            ("report.html", "everything to look at, in a browser"),
        ):
            # Without a final stage nothing was trained to be kept.
            if file != "adapter/" or "test" in summary["best"]:
                console.print(f"  {folder}/{file}  ({what})")


def _every_metric(summary: Mapping[str, Any], shown: list[str], names: Mapping[str, str]) -> object:
    """Each metric on each split, and by group, a row each."""
    from rich.table import Table

    table = Table(title="every metric")
    for column in ("set", "metric", *(names[label] for label in shown)):
        table.add_column(column, justify="left" if column in ("set", "metric") else "right", no_wrap=True)
    rows = {(split, name): None for label in shown for split, one in summary[label]["metrics"].items() for name in one}
    for split, name in rows:
        pairs = [summary[label]["metrics"].get(split, {}).get(name) for label in shown]
        cells = [_figure(pair, name.startswith("rows[")) for pair in pairs]
        table.add_row(
            split.partition(".")[2] or split, name.replace("[", "\\[").replace("validation_loss", "loss"), *cells
        )
    return table


def _figure(pair: list[object] | None, count: bool = False) -> str:
    if pair is None or pair[0] is None:
        return ""
    if count:
        return f"{pair[0]:.0f}"
    return f"{pair[0]:.4f}" + (f" ± {pair[1]:.4f}" if pair[1] is not None else "")


def _score(entry: Mapping[str, Any], split: str) -> str:
    if split not in entry:
        return ""
    error = entry.get(f"{split}_se")
    return f"{entry[split]:.4f}" + (f" ± {error:.4f}" if error is not None else "")
