from __future__ import annotations

import numpy as np
import pytest

from raylora.reports.page import space_map
from raylora.reports.page.datasets import find_knobs
from raylora.reports.page.facts import read_facts
from raylora.reports.page.space_map import flattened, map_rows


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
