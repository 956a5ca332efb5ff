"""Charts of what the knobs do: one, two, all of them, and how much each mattered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from raylora.reports.page.datasets import Knob
from raylora.reports.page.marks import (
    HEIGHT,
    TRIAL,
    Spec,
    Views,
    amount,
    chart,
    dots,
    faded,
    name,
    only,
    told,
)


def _on(channel: str, knob: Knob) -> tuple[Spec, list[Spec]]:
    """A knob on the x or y axis, and what has to be computed for it: few values get room to lie side by side."""
    if knob.numeric and len(knob.values) > len(knob.cells):
        log: Spec = {"type": "log"} if knob.log else {}
        axis = {"labelOverlap": True, "format": "~g"}
        return {channel: amount(knob.column, knob.name, scale={**log, "nice": False, "padding": 12}, axis=axis)}, []
    order = list(knob.cells) if channel == "x" else list(reversed(knob.cells))
    place = {"field": f"{knob.column}_cell", "type": "ordinal", "title": knob.name, "sort": order}
    grid = {"labelOverlap": True, "grid": True, "bandPosition": 0, "tickBand": "extent"}
    if channel == "x":
        grid["labelAngle"] = 0
    beside = {"field": f"beside_{channel}", "type": "quantitative", "scale": {"domain": [0, 1]}}
    compute = {"calculate": "0.15 + 0.7 * random()", "as": f"beside_{channel}"}
    return {channel: {**place, "axis": grid}, f"{channel}Offset": beside}, [compute]


def slices(metric: str, knobs: Sequence[Knob]) -> Views:
    """The metric against each knob alone."""
    views = {}
    for knob in knobs:
        place, compute = _on("x", knob)
        points: Spec = {
            "transform": [only(f"isValid(datum.value) && isValid(datum.{knob.column})"), *compute],
            **dots(**place, y=amount("value", metric), color=name("variant", "variant"), opacity=0.65),
        }
        views[knob.name] = chart([points], "trials", zoom=not compute)
    return views


def pairs(metric: str, mode: str, knobs: Sequence[Knob]) -> Views:
    """The best value for each pair of two knobs' values; rate and alpha first."""
    wanted = {"learning_rate": 0, "alpha_ratio": 1, "alpha": 1}
    ordered = sorted(knobs, key=lambda knob: wanted.get(knob.name, 2))
    return {f"{a.name} x {b.name}": _pair(metric, mode, a, b) for a, b in combinations(ordered, 2)}


def _pair(metric: str, mode: str, a: Knob, b: Knob) -> Spec:
    x, y = f"{a.column}_cell", f"{b.column}_cell"
    top = {"op": "argmax" if mode == "max" else "argmin", "field": "value", "as": "top"}
    best = [
        only("isValid(datum.value)"),
        {"aggregate": [top, {"op": "count", "as": "trials"}], "groupby": [x, y]},
        {"calculate": "datum.top.value", "as": "best"},
        {"calculate": "datum.top.key", "as": "key"},
        {"calculate": "datum.top.recipe", "as": "recipe"},
    ]
    place: Spec = {
        "x": {"field": x, "type": "ordinal", "title": a.name, "sort": list(a.cells), "axis": {"labelAngle": 0}},
        "y": {"field": y, "type": "ordinal", "title": b.name, "sort": list(reversed(b.cells))},
    }
    heat = {"range": "heatmap", "zero": False}
    cells: Spec = {
        "transform": best,
        "mark": {"type": "rect", "cornerRadius": 3, "stroke": "@card", "strokeWidth": 2},
        "encoding": {
            **place,
            "color": {"field": "best", "type": "quantitative", "title": f"best {metric}", "scale": heat},
            "opacity": faded(1),
            "tooltip": told(
                (x, a.name), (y, b.name), ("best", f"best {metric}"), ("trials", "trials"), ("recipe", "best")
            ),
        },
    }
    on_dark = "luminance(scale('color', datum.best)) < 0.2"
    figures: Spec = {
        "transform": best,
        "mark": {"type": "text", "fontSize": 11},
        "encoding": {
            **place,
            "text": {"field": "best", "type": "quantitative", "format": ".3~g"},
            "color": {"condition": {"test": on_dark, "value": "#ffffff"}, "value": "#1d2329"},
            "opacity": faded(1),
        },
    }
    height = max(200, min(420, 36 * len(b.cells)))
    return chart([cells, figures], "trials", zoom=False, height=height)


def ranks(knobs: Sequence[Knob]) -> Views:
    """Where each trial stands among all, 0 the best, over two knobs."""
    wanted = {"learning_rate": 0, "rank": 1}
    ordered = sorted(knobs, key=lambda knob: wanted.get(knob.name, 2))
    views = {}
    for a, b in combinations(ordered, 2):
        (x, compute_x), (y, compute_y) = _on("x", a), _on("y", b)
        colour = amount("share", "rank, 0 the best") | {"scale": {"range": "ranks", "domain": [0, 1]}}
        tooltip = [*TRIAL, *told(("place", "place"))]
        points: Spec = {
            "transform": [only("isValid(datum.value)"), *compute_x, *compute_y],
            **dots(**x, **y, color=colour, opacity=0.9, size=70, tooltip=tooltip),
        }
        views[f"{a.name} x {b.name}"] = chart([points], "trials", zoom=not compute_x and not compute_y)
    return views


def parallel(axes: Sequence[str], metric: str, mode: str) -> Views:
    """Each trial a line over an axis for each knob and one for the metric."""
    x: Spec = {"field": "axis", "type": "nominal", "sort": list(axes), "title": None, "axis": {"labelAngle": 0}}
    y = amount("place", "", axis=None, scale={"domain": [0, 1], "nice": False})
    heat = {"range": "heatmap", "zero": False}
    lines: Spec = {
        "data": {"name": "parallel"},
        "mark": {"type": "line", "strokeWidth": 1.3},
        "encoding": {
            "x": x,
            "y": y,
            "detail": name("key"),
            "color": {"field": "value", "type": "quantitative", "title": metric, "scale": heat},
            "opacity": {"condition": {"test": "chosen !== null && datum.key !== chosen", "value": 0.05}, "value": 0.5},
            "order": {"field": "at", "type": "quantitative"},
            "tooltip": told(("recipe", "recipe"), ("value", metric), ("trial", "trial"), ("run", "run")),
        },
    }
    ours: Spec = {
        "data": {"name": "parallel"},
        "transform": [only("datum.key === chosen")],
        "mark": {"type": "line", "strokeWidth": 3.5, "color": "@chosen"},
        "encoding": {"x": x, "y": y, "detail": name("key"), "order": lines["encoding"]["order"]},
    }
    rules: Spec = {
        "data": {"values": [{"axis": axis} for axis in axes]},
        "mark": {"type": "rule", "opacity": 0.4},
        "encoding": {"x": x, "y": {"value": 0}, "y2": {"value": "height"}},
    }
    halo: Spec = {
        "data": {"name": "parallel_labels"},
        "mark": {"type": "text", "align": "left", "dx": 5, "fontSize": 11, "stroke": "@card", "strokeWidth": 4},
        "encoding": {"x": x, "y": y, "text": {"field": "label"}},
    }
    labels: Spec = {**halo, "mark": {"type": "text", "align": "left", "dx": 5, "fontSize": 11, "color": "@ink"}}
    return {"": chart([rules, lines, ours, halo, labels], zoom=False, height=HEIGHT + 40)}


def importance(several: bool) -> Views:
    """Bars for each knob, by both methods."""
    methods: Spec = {"domain": ["fANOVA", "PED-ANOVA"]}
    bars: Spec = {
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "y": {"field": "knob", "type": "nominal", "sort": "-x", "title": None},
            "x": amount("importance", "importance", scale={"zero": True}),
            "yOffset": name("method", scale=methods),
            "color": name("method", "method", scale=methods),
        },
    }
    height: Spec = {"step": 16}
    view: Spec = {"params": [], "width": "container", "height": height, "data": {"name": "importance"}, **bars}
    if not several:
        return {"": {**view, "params": [{"name": "chosen", "value": None}]}}
    runs = {**bars, "encoding": {**bars["encoding"], "color": name("run", "run"), "yOffset": name("run")}}
    return {
        method: {
            **view,
            **runs,
            "params": [{"name": "chosen", "value": None}],
            "transform": [only(f"datum.method === '{method}'")],
        }
        for method in ("fANOVA", "PED-ANOVA")
    }


def distribution(metric: str) -> Views:
    """Share of trials at or below each value."""
    views = {}
    for by in ("run", "variant"):
        line: Spec = {
            "transform": [only(f"datum.by === '{by}'")],
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
            "encoding": {
                "x": amount("value", metric),
                "y": amount("share", "share of trials at or below", axis={"format": "%"}, scale={"domain": [0, 1]}),
                "color": name("group", by),
            },
        }
        views[f"by {by}"] = chart([line], "distribution")
    return views
