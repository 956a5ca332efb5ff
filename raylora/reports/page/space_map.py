"""The map of a run's space: its trials in two dimensions, near each other where their configurations are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from raylora.reports.page.datasets import Knob, Row, page_key
from raylora.reports.page.facts import RunFacts, Trial
from raylora.reports.page.marks import LINE, Spec, Views, amount, chart, faded, only, sized, told
from raylora.reports.page.words import recipe
from raylora.run.embeddings import read_embeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_TRIALS = 8
MANY_STEPS = 60
# What a searcher with a language model keeps of its trials (see `SurrogateActor.embeddings`), in words: the most first.
SEEN = {
    "learned": "what the searcher has learned to see",
    "prompt": "the language model's reading of the prompt, nothing learned",
    "plain": "the same without domain knowledge",
}
KNOBS = "the knobs themselves"
# What a point tells under the mouse.
TOLD = [*LINE, *told(("status", "ended"), ("value", "value"), ("step", "in the order of start"))]


def map_rows(runs: Sequence[RunFacts], knobs: Sequence[Knob]) -> list[Row]:
    """Where each trial lies on each map of its run, in order of start: `x`, `y`, its value and `step`.

    Maps (`by`) are of the searcher's embeddings, where the run kept them, and of the knobs. `step` is the trial's place
    on the path of the search.

    Args:
        knobs: those that vary, see `find_knobs`; the coordinates are theirs.
    """
    return [row for run in runs for row in _rows(run, knobs)]


def method() -> str:
    """How the map is made here, in words."""
    return "t-SNE" if _sklearn() else "principal components, for want of scikit-learn"


def _rows(run: RunFacts, knobs: Sequence[Knob]) -> list[Row]:
    found: list[Row] = []
    for by, trials, features in _features(run, knobs):
        points = flattened(features, run.spec.seed)
        found += [
            {
                "key": page_key(run, trial),
                "run": run.name,
                "by": by,
                "trial": trial.number,
                "variant": str(trial.config.get("variant", "")),
                "status": trial.status,
                "recipe": recipe(trial.config),
                "value": run.value(trial),
                "step": step,
                "x": float(x),
                "y": float(y),
            }
            for step, (trial, (x, y)) in enumerate(zip(trials, points, strict=True), start=1)
        ]
    return found


def _features(run: RunFacts, knobs: Sequence[Knob]) -> Iterator[tuple[str, Sequence[Trial], NDArray[np.float64]]]:
    """The maps of a run: what is near by, its trials, their features `(n, d)`; those with too few trials are none."""
    kept = read_embeddings(run.folder)
    for name, by in SEEN.items():
        trials = [trial for trial in run.trials if trial.key in kept.get(name, {})]
        if len(trials) >= LEAST_TRIALS:
            yield by, trials, np.array([kept[name][trial.key] for trial in trials], dtype=np.float64)
    if len(run.trials) >= LEAST_TRIALS and knobs:
        yield KNOBS, run.trials, np.concatenate([_coordinates(run.trials, knob) for knob in knobs], axis=1)


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


def space_map(metric: str, rows: Sequence[Row]) -> Views:
    """The maps: trials by place, coloured by value, and a line through them in the order of the search.

    Args:
        rows: what `map_rows` found.
    """
    maps = list(dict.fromkeys((row["run"], row["by"]) for row in rows))
    several = len({run for run, _ in maps}) > 1
    steps = {run: max(row["step"] for row in rows if row["run"] == run) for run, _ in maps}
    return {f"{run}: {by}" if several else by: _view(metric, run, by, steps[run]) for run, by in maps}


def _view(metric: str, run: str, by: str, steps: int) -> Spec:
    mine = only(f"datum.run === {json.dumps(run)} && datum.by === {json.dumps(by)}")
    place = {axis: amount(axis, axis, axis=None) for axis in ("x", "y")}
    path: Spec = {
        "transform": [mine],
        # A long path is drawn fainter: its points are what is looked at.
        "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.35 if steps <= MANY_STEPS else 0.12},
        "encoding": {**place, "order": {"field": "step", "type": "quantitative"}},
    }
    colour = {"field": "value", "type": "quantitative", "title": metric, "scale": {"range": "heatmap", "zero": False}}
    points: Spec = {
        "transform": [mine, only("isValid(datum.value)")],
        "mark": {"type": "point", "filled": True, "stroke": "@soft", "strokeWidth": 0.8},
        "encoding": {**place, "color": colour, "opacity": faded(0.9), "size": sized(80), "tooltip": TOLD},
    }
    lost: Spec = {
        "transform": [mine, only("!isValid(datum.value)")],
        "mark": {"type": "point", "shape": "cross"},
        "encoding": {**place, "opacity": faded(0.5), "size": sized(), "tooltip": TOLD},
    }
    return chart([path, points, lost], "map")
