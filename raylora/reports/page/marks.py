"""What the charts' Vega-Lite descriptions are made of. Colours and type are the page's own, see `assets/page.js`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

# The trial that the reader chose; the page sets it in every chart at once.
CHOSEN: Spec = {"name": "chosen", "value": None}
HEIGHT = 300
# Dragging moves, Ctrl and the wheel zoom (a bare wheel scrolls the page), a double click goes back.
ZOOM: Spec = {
    "name": "zoom",
    "bind": "scales",
    "select": {"type": "interval", "zoom": "wheel![event.ctrlKey || event.altKey || event.metaKey]"},
}
# So that the frame cuts no point.
ROOM: Spec = {"nice": False, "padding": 8}
FAILED: Spec = {"domain": ["diverged", "failed"], "range": ["cross", "triangle-down"]}
ENDED: Spec = {
    "domain": ["stopped", "diverged", "failed", "paused", "resumed"],
    "range": ["square", "cross", "triangle-down", "circle", "triangle-right"],
}


def dashes(title: str) -> Spec:
    """A line's dashes tell its run; gaps are wider than the round ends of what is drawn."""
    return name("run", title, scale={"range": [[1, 0], [8, 6], [2, 5], [10, 5, 2, 5]]})


def shapes(scale: Spec, there: Iterable[object]) -> Spec:
    """The scale with what is there alone, so that a legend tells of nothing else; empty where nothing is."""
    found = set(there)
    kept = [pair for pair in zip(scale["domain"], scale["range"], strict=True) if pair[0] in found]
    return {"domain": [value for value, _ in kept], "range": [shape for _, shape in kept]} if kept else {}


def amount(field: str, title: str, **more: Any) -> Spec:
    """A quantitative channel that need not show zero, with room at the ends, unless its scale says otherwise."""
    scale = more.pop("scale", {}) or ROOM
    scale = scale if scale.get("type") == "log" else {"zero": False, **scale}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, **more}


def name(field: str, title: str | None = None, **more: object) -> Spec:
    """A nominal channel."""
    return {"field": field, "type": "nominal", "title": title, **more}


def told(*fields: tuple[str, str]) -> list[Spec]:
    """Tooltip of (field, title) pairs."""
    return [{"field": field, "title": title} for field, title in fields]


def faded(value: float = 0.75) -> Spec:
    """Opacity: what is not chosen steps back."""
    return {"condition": {"test": "chosen !== null && datum.key !== chosen", "value": 0.1}, "value": value}


def sized(value: float = 55) -> Spec:
    """Size: what is chosen stands out."""
    return {"condition": {"test": "datum.key === chosen", "value": 4 * value}, "value": value}


def only(test: str) -> Spec:
    """Keeps the rows of which the expression holds."""
    return {"filter": test}


def chart(layers: Sequence[Spec], data: str | None = None, *, zoom: bool = True, **more: object) -> Spec:
    """Layers over each other, as wide as the page lets them be."""
    layers = [dict(layer) for layer in layers]
    if zoom:
        layers[0] = {**layers[0], "params": [ZOOM]}
    source: Mapping[str, object] = {} if data is None else {"data": {"name": data}}
    return {"width": "container", "height": HEIGHT, "params": [CHOSEN], **source, "layer": layers, **more}


def dots(*, opacity: float = 0.75, size: float = 55, tooltip: Sequence[Spec] | None = None, **channels: Spec) -> Spec:
    """A point for each trial: what is not chosen steps back, what is chosen stands out, and its tooltip is TRIAL."""
    shown = {"opacity": faded(opacity), "size": sized(size), "tooltip": TRIAL if tooltip is None else list(tooltip)}
    return {"mark": {"type": "point", "filled": True}, "encoding": {**channels, **shown}}


def spread(x: Spec, y: Spec, low: str, high: str) -> Spec:
    """The channels of a bar from one field to another, along y."""
    return {"x": x, "y": {**y, "field": low}, "y2": {"field": high}, "opacity": faded(0.3)}


# A chart is a choice of views: what the reader sees in the list -> its description.
Views = dict[str, Spec]

TRIAL = told(("recipe", "recipe"), ("run", "run"), ("trial", "trial"), ("status", "ended"), ("value", "value"))
TRIAL += told(("error", "± "), ("loss", "validation loss"), ("seconds", "seconds"), ("parameters", "parameters"))
LINE = told(("recipe", "recipe"), ("run", "run"), ("trial", "trial"))
