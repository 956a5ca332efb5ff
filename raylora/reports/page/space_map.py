"""The map of a run's space: its trials in two dimensions, near each other where their configurations are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raylora.reports.page.datasets import Knob, Row, page_key
from raylora.reports.page.facts import RunFacts, Trial
from raylora.reports.page.marks import LINE, Spec, Views, chart, faded, only, sized, told

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_TRIALS = 8
# What a point tells under the mouse.
TOLD = [*LINE, *told(("status", "ended"), ("value", "value"), ("step", "in the order of start"))]


def map_rows(runs: Sequence[RunFacts], knobs: Sequence[Knob]) -> list[Row]:
    """Where each trial lies, in order of start: `x`, `y`, its value and `step`, its place on the path of the search.

    Args:
        knobs: those that vary, see `find_knobs`; the coordinates are theirs.
    """
    return [row for run in runs for row in _rows(run, knobs)]


def method() -> str:
    """How the map is made here, in words."""
    return "t-SNE" if _sklearn() else "principal components, for want of scikit-learn"


def _rows(run: RunFacts, knobs: Sequence[Knob]) -> list[Row]:
    if len(run.trials) < LEAST_TRIALS or not knobs:
        return []
    points = flattened(np.concatenate([_coordinates(run.trials, knob) for knob in knobs], axis=1), run.spec.seed)
    return [
        {
            "key": page_key(run, trial),
            "run": run.name,
            "trial": trial.number,
            "variant": str(trial.config.get("variant", "")),
            "status": trial.status,
            "recipe": " ".join(f"{name}={given}" for name, given in trial.config.items()),
            "value": run.value(trial),
            "step": step,
            "x": float(x),
            "y": float(y),
        }
        for step, (trial, (x, y)) in enumerate(zip(run.trials, points, strict=True), start=1)
    ]


def _coordinates(trials: Sequence[Trial], knob: Knob) -> NDArray[np.float64]:
    """A knob's columns, `(n, c)` in [0, 1]: one of numbers, on their scale, else one for each value.

    A trial without the knob is in the middle, or has none of the values.
    """
    given = [trial.config.get(knob.name) for trial in trials]
    if not knob.numeric:
        return np.array([[float(str(one) == str(value)) for value in knob.values] for one in given])
    scale = np.log if knob.log else np.asarray
    low, high = (float(scale(value)) for value in (knob.values[0], knob.values[-1]))
    return np.array([[0.5 if one is None else (float(scale(one)) - low) / (high - low)] for one in given])


def flattened(features: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Points in two dimensions, `(n, 2)`, from `(n, d)`; the same ones for the same seed.

    t-SNE (van der Maaten and Hinton, 2008) where scikit-learn is there, begun at the principal components; else those
    alone.
    """
    if not _sklearn() or len(features) < 4 or len(np.unique(features, axis=0)) < 4:
        return _principal(features)
    from sklearn.manifold import TSNE

    start = _principal(features)
    start = 1e-4 * start / max(float(start[:, 0].std()), 1e-12)
    perplexity = min(30.0, (len(features) - 1) / 3)
    made = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(features)
    return np.asarray(made, dtype=np.float64)


def _principal(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores on the first two principal components, `(n, 2)`; zeros where there is one alone."""
    centred = features - features.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    scores = left[:, :2] * size[:2]
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))


def _sklearn() -> bool:
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def space_map(metric: str, runs: Sequence[str]) -> Views:
    """A map for each run: trials by place, coloured by value, and a line through them in the order of the search."""
    return {run: _view(metric, run) for run in runs}


def _view(metric: str, run: str) -> Spec:
    mine = only(f"datum.run === {json.dumps(run)}")
    place = {axis: {"field": axis, "type": "quantitative", "axis": None} for axis in ("x", "y")}
    path: Spec = {
        "transform": [mine],
        "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.35},
        "encoding": {**place, "order": {"field": "step", "type": "quantitative"}},
    }
    colour = {"field": "value", "type": "quantitative", "title": metric, "scale": {"range": "heatmap", "zero": False}}
    points: Spec = {
        "transform": [mine, only("isValid(datum.value)")],
        "mark": {"type": "point", "filled": True},
        "encoding": {**place, "color": colour, "opacity": faded(0.9), "size": sized(80), "tooltip": TOLD},
    }
    lost: Spec = {
        "transform": [mine, only("!isValid(datum.value)")],
        "mark": {"type": "point", "shape": "cross"},
        "encoding": {**place, "opacity": faded(0.5), "size": sized(), "tooltip": TOLD},
    }
    return chart([path, points, lost], "map")
