from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from raylora.reports.page import space_map
from raylora.reports.page.datasets import find_knobs
from raylora.reports.page.facts import read_facts
from raylora.reports.page.space_map import KNOBS, SEEN, flattened, map_rows
from raylora.run.embeddings import keep_embeddings


def groups() -> np.ndarray:
    """Two groups of ten, far from each other: `(20, 6)`."""
    return np.random.default_rng(0).normal(scale=0.05, size=(20, 6)) + np.repeat([[0.0], [1.0]], 10, axis=0)


@pytest.mark.parametrize("installed", [True, False], ids=["t-SNE", "principal components"])
def test_what_is_near_in_the_space_is_near_on_the_map(installed, monkeypatch) -> None:
    monkeypatch.setattr(space_map, "_sklearn", lambda: installed)
    points = flattened(groups(), seed=0)
    first, second = points[:10], points[10:]
    apart = np.linalg.norm(first.mean(0) - second.mean(0))
    assert points.shape == (20, 2) and apart > 2 * max(first.std(), second.std()) / 2
    assert np.array_equal(points, flattened(groups(), seed=0))


def test_points_that_all_lie_together_have_a_place() -> None:
    assert np.isfinite(flattened(np.ones((9, 3)), seed=0)).all()
    assert flattened(np.arange(3.0)[:, None], seed=0).shape == (3, 2)


def test_trials_have_a_place_in_the_order_of_their_start(make_run) -> None:
    run = read_facts(make_run("mapped", trials=12))
    rows = map_rows([run], find_knobs([run]))
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) == 12
    assert all(np.isfinite([row["x"], row["y"]]).all() for row in rows)


def test_few_trials_make_no_map(make_run) -> None:
    run = read_facts(make_run("few", trials=5))
    assert map_rows([run], find_knobs([run])) == []


def test_what_the_searcher_told_trials_apart_by_is_a_map_of_its_own(make_run) -> None:
    """Two halves of the trials that embeddings keep apart lie apart on that map, whatever their knobs are."""
    run = read_facts(make_run("seen", trials=20))

    def embeddings(indices):
        half = np.repeat([0.0, 5.0], [len(indices) // 2, len(indices) - len(indices) // 2])
        noise = np.random.default_rng(0).normal(scale=0.1, size=(len(indices), 8))
        return {"learned": (half[:, None] + noise).astype(np.float32)}

    keep_embeddings(run.folder, SimpleNamespace(space=run.spec.to_space(), embeddings=embeddings), pytest.fail)
    rows = map_rows([run], find_knobs([run]))
    assert list(space_map.space_map("accuracy", rows)) == [SEEN["learned"], KNOBS]
    seen = np.array([[row["x"], row["y"]] for row in rows if row["by"] == SEEN["learned"]])
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    apart = np.linalg.norm(first.mean(0) - second.mean(0))
    assert apart > max(np.linalg.norm(half - half.mean(0), axis=1).max() for half in (first, second))
