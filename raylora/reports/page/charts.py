"""The charts of a report, as Vega-Lite descriptions over the page's tables (see `datasets`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raylora.reports.page.datasets import COSTS, Row
from raylora.reports.page.marks import (
    ENDED,
    FAILED,
    HEIGHT,
    LINE,
    ROOM,
    TRIAL,
    Spec,
    Views,
    amount,
    chart,
    dashes,
    dots,
    faded,
    name,
    only,
    shapes,
    sized,
    spread,
    told,
)


def progress(metric: str, mode: str, several: bool, defaults: Sequence[Row]) -> Views:
    """Best so far, with all trials behind it and the default recipe's line."""
    views = {}
    for title, axis in (("over trials", "count"), ("over time", "minutes")):
        colour: Spec = {"color": name("run", "run")} if several else {}
        x = amount(axis, "trials that ended" if axis == "count" else "minutes since the first trial")
        if axis == "count":
            x["axis"] = {"tickMinStep": 1, "format": "d"}
        layers: list[Spec] = [
            {
                "data": {"name": "trials"},
                "transform": [only("isValid(datum.value) && isValid(datum.count)")],
                **dots(x=x, y=amount("value", metric), opacity=0.35, size=35, **colour),
            },
            {
                "data": {"name": "progress"},
                "transform": [only("datum.best !== null")],
                "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2.5},
                "encoding": {"x": x, "y": amount("best", metric), **colour},
            },
            {
                "data": {"name": "progress"},
                "transform": [only("datum.better")],
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": amount("best", metric),
                    "tooltip": told(("recipe", "new best"), ("best", metric), ("run", "run")),
                    **colour,
                },
            },
        ]
        if defaults:
            layers += _default_line(several)
        views[title] = chart(layers)
    return views


def _default_line(several: bool) -> list[Spec]:
    y = amount("value", "")
    rule: Spec = {
        "data": {"name": "defaults"},
        "mark": {"type": "rule", "strokeDash": [6, 4], "strokeWidth": 1.5},
        "encoding": {"y": y, "tooltip": told(("what", "line"), ("value", "value"), ("run", "run"))},
    }
    if several:  # their words would lie over each other: the colour tells whose a line is
        rule["encoding"]["color"] = name("run", "run")
        return [rule]
    words: Spec = {
        "data": {"name": "defaults"},
        "mark": {"type": "text", "align": "right", "baseline": "bottom", "dy": -3},
        "encoding": {"y": y, "x": {"value": "width"}, "text": {"field": "what"}},
    }
    return [rule, words]


def rates(metric: str, mode: str, several: bool, rows: Sequence[Row]) -> Views:
    """Rate against loss and against the metric, one line per variant: its best at each rate, or its mean there."""
    views = {}
    for field, title, best in (("loss", "validation loss", "min"), ("value", metric, mode)):
        values = [row[field] for row in rows if row[field] is not None]
        if not values:
            continue
        y = amount(field, title, scale=_without_outliers(values, worse_is_up=best == "min"))
        for kind in ("best at each rate", "mean at each rate"):
            layers = _rate_layers(field, y, kind.partition(" ")[0], best, several)
            if scale := shapes(FAILED, (row["status"] for row in rows)):
                layers.append(_lost(scale))
            views[f"{title}, {kind}"] = chart(layers, "trials", height=HEIGHT + 60)
    return views


def _rate_axis() -> Spec:
    return amount(
        "rate",
        "learning rate",
        scale={"type": "log", "nice": False, "padding": 16},
        axis={"format": "~e", "labelOverlap": True, "grid": False},
    )


def _rate_layers(field: str, y: Spec, kind: str, best: str, several: bool) -> list[Spec]:
    x = _rate_axis()
    colour: Spec = {"color": name("variant", "variant")}
    dash = {"strokeDash": dashes("run")} if several else {}
    finished = [only(f"isValid(datum.rate) && isValid(datum.{field})")]
    points: Spec = {"transform": finished, **dots(x=x, y=y, opacity=0.6, **colour)}
    by = ["rate", "variant", *(["run"] if several else [])]
    at = {**y, "field": "at"}
    line: Spec = {
        "transform": [
            *finished,
            {"aggregate": [{"op": best if kind == "best" else "mean", "field": field, "as": "at"}], "groupby": by},
        ],
        "mark": {"type": "line", "strokeWidth": 2, "clip": True},
        "encoding": {"x": x, "y": at, **colour, **dash},
    }
    if kind == "mean":
        bars: Spec = {
            "transform": finished,
            "mark": {"type": "errorbar", "extent": "stdev", "ticks": True, "clip": True},
            "encoding": {"x": x, "y": {**y, "title": y["title"]}, **colour},
        }
    else:
        bars = {
            "transform": [
                *finished,
                only(f"'{field}' === 'value' && isValid(datum.error)"),
                {"calculate": "datum.value - datum.error", "as": "low"},
                {"calculate": "datum.value + datum.error", "as": "high"},
            ],
            "mark": {"type": "rule", "clip": True},
            "encoding": {**spread(x, y, "low", "high"), **colour},
        }
    return [points, line, bars]


def _lost(scale: Spec) -> Spec:
    """Trials without a value, at the top of the frame."""
    return {
        "transform": [only("datum.status === 'diverged' || datum.status === 'failed'")],
        "mark": {"type": "point", "filled": True, "size": 70},
        "encoding": {
            "x": _rate_axis(),
            "y": {"value": 7},
            "shape": name("status", "lost", scale=scale),
            "color": name("variant", "variant"),
            "opacity": faded(0.9),
            "tooltip": [*TRIAL, {"field": "message", "title": "message"}],
        },
    }


def _without_outliers(values: Sequence[float], *, worse_is_up: bool) -> Spec:
    """An axis that a few trials far off do not squeeze; they lie outside until the reader zooms out."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    first, third = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    reach = 2.5 * (third - first)
    if len(ordered) < 8 or reach <= 0:
        return {}
    if worse_is_up and high > third + reach:
        high = third + reach
    elif not worse_is_up and low < first - reach:
        low = first - reach
    else:
        return {}
    room = 0.04 * (high - low)
    return {**ROOM, "domain": [low - room, high + room]}


def tradeoffs(metric: str, mode: str, several: bool, rows: Sequence[Row]) -> Views:
    """Quality against what a trial costs, with the front that no trial beats in both."""
    views = {}
    for cost, title in COSTS.items():
        known = [row[cost] for row in rows if row[cost] is not None and row["value"] is not None]
        if not known:
            continue
        log = min(known) > 0 and max(known) / min(known) > 20
        x = amount(
            cost,
            title,
            scale={"type": "log", "nice": False, "padding": 12} if log else {},
            axis={"labelOverlap": True, "format": "~s"},
        )
        y = amount("value", metric)
        shown = [only(f"isValid(datum.value) && isValid(datum.{cost})")]
        points: Spec = {"transform": shown, **dots(x=x, y=y, color=name("variant", "variant"))}
        whose = {"strokeDash": dashes("front of")} if several else {}
        line: Spec = {
            "transform": [*shown, only(f"datum.front_{cost}")],
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "color": "@soft"},
            "encoding": {"x": x, "y": y, "detail": name("run"), **whose},
        }
        views[f"against {title.partition(',')[0]}"] = chart([points, line], "trials")
    if "against trainable parameters" in views:
        views["by rank"] = _by_rank(metric, mode)
    return views


def _by_rank(metric: str, mode: str) -> Spec:
    x = amount("parameters", "trainable parameters", scale={"type": "log"}, axis={"format": "~s", "labelOverlap": True})
    y = amount("value", metric)
    shown = [only("isValid(datum.value) && datum.parameters > 0 && isValid(datum.rank)")]
    ramp: Spec = {"field": "rank", "type": "ordinal", "title": "rank", "scale": {"range": "ramp"}}
    points: Spec = {"transform": shown, **dots(x=x, y=y, color=ramp, shape=name("variant", "variant"))}
    line: Spec = {
        "transform": [
            *shown,
            {
                "aggregate": [
                    {"op": mode, "field": "value", "as": "at"},
                    {"op": "mean", "field": "parameters", "as": "size"},
                ],
                "groupby": ["rank", "variant"],
            },
        ],
        "mark": {"type": "line", "strokeWidth": 1.5, "opacity": 0.6},
        "encoding": {"x": {**x, "field": "size"}, "y": {**y, "field": "at"}, "detail": name("variant")},
    }
    return chart([points, line], "trials")


def curves(metric: str, rows: Sequence[Row], marks: Sequence[Row]) -> Views:
    """A line for each trial over its reports; marks where it was stopped, lost, paused or taken up again."""
    views = {}
    many = len({row["key"] for row in rows}) > _MANY
    marked = shapes(ENDED, (row["what"] for row in marks))
    for field, title in (("value", metric), ("loss", "validation loss"), ("training_loss", "training loss")):
        values = [row[field] for row in rows if row[field] is not None]
        if not values:
            continue
        for axis, unit in (("samples", "samples trained"), ("minutes", "minutes since the first trial")):
            x = amount(axis, unit)
            y = amount(field, title, scale=_without_outliers(values, worse_is_up=field != "value"))
            shown = [only(f"isValid(datum.{field})")]
            shared = {"x": x, "y": y, "color": name("variant", "variant"), "detail": name("key")}
            told_at = [*LINE, {"field": axis, "title": unit}, {"field": field, "title": title}]
            layers: list[Spec] = [
                {
                    "transform": shown,
                    "mark": {"type": "line", "strokeWidth": 1.5, "clip": True},
                    "encoding": {**shared, "opacity": faded(0.25 if many else 0.55)},
                },
                {
                    "transform": shown,
                    "mark": {"type": "point", "filled": True, "clip": True},
                    "encoding": {**shared, "opacity": faded(0.7), "size": sized(18), "tooltip": told_at},
                },
            ]
            if marked:
                layers.append(
                    {
                        "data": {"name": "marks"},
                        "transform": shown,
                        "mark": {"type": "point", "filled": True, "size": 75, "clip": True},
                        "encoding": {
                            **shared,
                            "shape": name("what", "mark", scale=marked),
                            "opacity": faded(0.9),
                            "tooltip": [*told_at, {"field": "what", "title": "mark"}],
                        },
                    }
                )
            views[f"{title} over {unit.partition(' ')[0]}"] = chart(layers, "curves")
    return views


def timeline(rows: Sequence[Row]) -> Views:
    """Which trial was on which host, when."""
    hosts = len({row["host"] for row in rows})
    there = {row["status"] for row in rows}
    colours = {status: colour for status, colour in _STATUS_COLOURS.items() if status in there}
    bars: Spec = {
        "mark": {"type": "bar", "cornerRadius": 2},
        "encoding": {
            "x": amount("begin", "minutes since the first trial", scale={"zero": True}),
            "x2": {"field": "end"},
            "y": {"field": "host", "type": "nominal", "title": None},
            "color": name("status", "ended", scale={"domain": list(colours), "range": list(colours.values())}),
            "opacity": {"condition": {"test": "chosen !== null && datum.key !== chosen", "value": 0.2}, "value": 0.9},
            "tooltip": [*LINE, {"field": "status", "title": "ended"}],
        },
    }
    return {"": chart([bars], "timeline", height=max(60, 34 * hosts))}


# Beyond so many trials their curves are drawn fainter.
_MANY = 60
_STATUS_COLOURS: Mapping[str, str] = {
    "finished": "#4c8bb8",
    "stopped": "#d9a441",
    "diverged": "#c8553d",
    "failed": "#8c2f39",
    "interrupted": "#8a8f98",
    "unfinished": "#b7bcc4",
}


def belief(metric: str) -> Views:
    """Predicted against observed, with the diagonal on which they agree."""
    x, y = amount("observed", f"observed {metric}"), amount("predicted", f"predicted {metric}")
    diagonal: Spec = {
        "data": {"name": "belief"},
        "transform": [
            {
                "aggregate": [
                    {"op": "min", "field": "observed", "as": "a"},
                    {"op": "max", "field": "observed", "as": "b"},
                ]
            }
        ],
        "mark": {"type": "rule", "strokeDash": [5, 4], "opacity": 0.6},
        "encoding": {
            "x": {**x, "field": "a"},
            "y": {**y, "field": "a"},
            "x2": {"field": "b"},
            "y2": {"field": "b"},
        },
    }
    bars: Spec = {
        "data": {"name": "belief"},
        "mark": "rule",
        "encoding": spread(x, y, "low", "high"),
    }
    range_ = told(("observed", "observed"), ("predicted", "predicted"), ("low", "from"), ("high", "to"))
    points: Spec = {
        "data": {"name": "belief"},
        **dots(x=x, y=y, color=name("variant", "variant"), tooltip=[*LINE, *range_]),
    }
    return {"": chart([points, bars, diagonal])}


def strategies() -> Views:
    """Mean dimension and place of LeLoRA's slices over training, by layer third and by matrix type."""
    views = {}
    for by, title in (("third", "layers"), ("kind", "matrix types")):
        for field, told_as in (("r", "mean dimension r"), ("place", "mean position: 0 primary, 1 minor")):
            line: Spec = {
                "transform": [only(f"datum.by === '{by}' && isValid(datum.{field})")],
                "mark": {"type": "line", "point": True},
                "encoding": {
                    "x": amount("step", "optimizer step"),
                    "y": amount(field, told_as),
                    "color": name("group", title),
                    "tooltip": told(("group", title), ("step", "step"), (field, told_as)),
                },
            }
            views[f"{told_as.partition(':')[0]} by {title}"] = chart([line], "strategies")
    return views


def curvature() -> Views:
    """Largest eigenvalue of each variant over LoRA's, along the layers."""
    line: Spec = {
        "transform": [only("isValid(datum.ratio)")],
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": amount("layer", "layer"),
            "y": amount("ratio", "largest eigenvalue over LoRA's", scale={"type": "log"}),
            "color": name("variant", "variant"),
            "strokeDash": name("type", "matrix"),
            "tooltip": told(("variant", "variant"), ("matrix", "matrix"), ("ratio", "over LoRA's")),
        },
    }
    return {"": chart([line], "curvature")}
