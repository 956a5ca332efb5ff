"""Which rows stand for all of them, from features made up here."""

from __future__ import annotations

import numpy as np
import pytest

from raylora.data.split import proxy_rows
from raylora.run.proxy.selectors import (
    SELECTORS,
    longest,
    nearest_median,
    neighbour_count,
    select,
    transported,
)


class Made:
    """Features of 40 rows: the second half lies where the targets do."""

    def lengths(self) -> np.ndarray:
        return np.arange(40) % 7

    def losses(self) -> np.ndarray:
        return np.arange(40)[::-1].astype(float)

    def embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(0)
        rows = draw.normal(size=(40, 4), scale=0.1)
        rows[:20, 0] += 5
        rows[20:, 0] -= 5
        return rows, draw.normal(size=(6, 4), scale=0.1) - [5, 0, 0, 0]


class Unasked:
    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} was asked for")


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_chooses_as_many_rows_as_a_proxy_has_the_same_each_time(name) -> None:
    chosen = select(name, 40, 0.2, 3, Made())
    assert len(chosen) == len(proxy_rows(40, 0.2, 3)) == len(set(chosen.tolist()))
    assert (np.diff(chosen) > 0).all() and np.array_equal(chosen, select(name, 40, 0.2, 3, Made()))


def test_random_is_the_proxy_of_a_run() -> None:
    assert np.array_equal(select("random", 40, 0.2, 3, Unasked()), proxy_rows(40, 0.2, 3))


@pytest.mark.parametrize("name", SELECTORS)
def test_all_rows_are_all_rows_and_nothing_is_asked_of_them(name) -> None:
    assert np.array_equal(select(name, 40, 1.0, 3, Unasked()), np.arange(40))


def test_the_longest_are_chosen_and_the_earlier_ones_of_equals() -> None:
    assert longest(np.array([3, 9, 9, 1, 9]), 2).tolist() == [1, 2]


def test_the_middle_of_the_losses_is_chosen() -> None:
    assert nearest_median(np.array([0.1, 9.0, 1.0, 1.1, 0.2, 8.0]), 2).tolist() == [2, 3]


def test_transport_goes_to_rows_like_the_targets() -> None:
    rows, targets = Made().embeddings()
    assert min(transported(rows, targets, 10, seed=0)) >= 20
    assert not np.array_equal(transported(rows, targets, 10, seed=0), transported(rows, targets, 10, seed=1))


def test_where_more_rows_are_wanted_than_are_near_farther_ones_are_drawn_from_too() -> None:
    rows, targets = Made().embeddings()
    chosen = transported(rows, targets, 30, seed=0)
    assert len(set(chosen.tolist())) == 30 and (chosen >= 20).sum() == 20


def test_the_number_of_neighbours_minimises_what_transport_and_unevenness_cost() -> None:
    means = np.sort(np.random.default_rng(0).gamma(2.0, size=50))
    cost = [(means[:k].sum() / means.mean() + 1) / k for k in range(1, 51)]
    assert neighbour_count(means) == 1 + int(np.argmin(cost))
