"""What `raylora curvature` shows of its figures: a table, a plot, and how they compare with trained sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylora.errors import UserError
from raylora.metrics.statistics import spearman

# What the paper finds on query matrices (4.2, I.3), beside which the measured medians are shown.
PUBLISHED = {
    "init_ab": "near LoRA's",
    "milora": "near LoRA's",
    "pissa": "about 10 times",
    "olora": "about 100 times",
    "lora_ga": "about 100 times",
}


def table(figures: Mapping[str, Any], compared: Mapping[str, Any] | None = None) -> tuple[list[str], list[list[str]]]:
    """Column names, and a row per variant in the order of their medians."""
    from searchers.surrogate.facts import VARIANTS

    records = figures["blocks"]
    layers = list(dict.fromkeys(record["matrix"] for record in records))
    short = [_short(name) for name in layers]
    columns = ["variant", *short, "median", "paper", "rate / lora's", "published"]
    columns += ["measured"] if compared else []
    rows = []
    ratios = {(record["variant"], record["matrix"]): record for record in records}
    order = sorted(figures["variants"], key=lambda name: figures["variants"][name]["curvature"])
    for name in order:
        row = figures["variants"][name]
        cells = [_cell(ratios.get((name, matrix))) for matrix in layers]
        fact = VARIANTS.get(name)
        published = "1" if name == "lora" else "" if fact is None else f"{fact.value:g}"
        span = f"{row['rate']:.2g} ({row['rate_low']:.2g} to {row['rate_high']:.2g})"
        line = [name, *cells, f"{row['curvature']:.3g}", PUBLISHED.get(name, ""), span, published]
        if compared:
            ratio = compared["measured"].get(name)
            line.append("" if ratio is None else f"{ratio:.2g}")
        rows.append(line)
    return columns, rows


def _short(matrix: str) -> str:
    from trainables.curvature import layer_of

    layer = layer_of(matrix)
    kind = matrix.rpartition(".")[2]
    return kind if layer is None else f"{layer} {kind}"


def _cell(record: Mapping[str, object] | None) -> str:
    if record is None or record["ratio"] is None:
        return ""
    return f"{record['ratio']:.3g}" + ("" if record["converged"] else "?")


def plot(figures: Mapping[str, Any], path: str | Path) -> Path:
    """Ratio to LoRA per layer, one line per variant and matrix type.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written in that format.
    """
    from raylora.reports.plots import load_pyplot, save_plot

    pyplot = load_pyplot("--plot")
    path = Path(path).expanduser()
    figure, axis = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    kinds = list(dict.fromkeys(record["type"] for record in figures["blocks"]))
    for number, name in enumerate(figures["variants"]):
        for kind, style in zip(kinds, ("-", "--", ":", "-.") * len(kinds), strict=False):
            points = [
                (record["layer"] or 0, record["ratio"])
                for record in figures["blocks"]
                if record["variant"] == name and record["type"] == kind and record["ratio"] is not None
            ]
            if points:
                label = name if len(kinds) == 1 else f"{name} {kind}"
                axis.plot(*zip(*points, strict=True), style, color=f"C{number % 10}", marker="o", label=label)
    axis.set_yscale("log")
    axis.set_xlabel("layer")
    axis.set_ylabel("largest eigenvalue over LoRA's")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, ncols=2)
    return save_plot(figure, path, "--plot")


def compare(figures: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """Predicted beside measured best rates relative to LoRA's.

    Args:
        source: a run's folder or a JSON of records that `raylora report` wrote.

    Returns:
        `{"measured": {variant: ratio of the rates of the lowest loss}, "variants": how many have both,
        "rank_correlation": Spearman's, LoRA included}`.

    Raises:
        UserError: the source is none, has no LoRA, or shares fewer than three variants.
    """
    from raylora.reports.sweep import best_rates, read_sweep

    # Of several methods of a variant, such as ranks, the one with the lowest loss.
    by_loss = sorted(best_rates(read_sweep(source)), key=lambda one: -one.loss)
    best = {one.variant: one.loss_rate for one in by_loss}
    if "lora" not in best:
        raise UserError(
            f"--sweep {source}: it has no lora to compare with; give a sweep with it",
            field="--sweep",
            value=str(source),
        )
    measured = {name: rate / best["lora"] for name, rate in best.items()}
    shared = [name for name in figures["variants"] if name in measured]
    if len(shared) < 3:
        raise UserError(
            f"--sweep {source}: it shares {len(shared)} variants with what was measured; give 3 or more",
            field="--sweep",
            value=str(source),
        )
    rates = [figures["variants"][name]["rate"] for name in shared]
    return {
        "measured": measured,
        "variants": len(shared),
        "rank_correlation": spearman(rates, [measured[name] for name in shared]),
    }
