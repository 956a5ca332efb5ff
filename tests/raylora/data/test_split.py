"""Which rows train, validate and test, held against the rules written down row by row on whole tables."""

from __future__ import annotations

import numpy as np
import pytest

from raylora.data.split import TEST_AT_MOST, TEST_FRACTION, TEST_SEED, among, proxy_rows, shuffled, split
from raylora.errors import UserError

VALIDATION, TRAIN, TEST = 0, 2, 3


class Limits:
    def __init__(self, train_rows=None, test_rows=None, max_new_tokens=4):
        self.train_rows, self.test_rows, self.max_new_tokens = train_rows, test_rows, max_new_tokens


class TablePool:
    """Random lengths and prompts; hides what was not asked for."""

    def __init__(self, count, seed, prompts=None):
        draw = np.random.default_rng(seed)
        self.count = count
        self.truth = {
            "prompts": draw.integers(1, 20, count).astype(np.int32),
            "responses": draw.integers(1, 14, count).astype(np.int32),
            "keys": draw.integers(0, prompts or count, count).astype(np.uint64),
            "usable": draw.random(count) > 0.1,
        }
        self.known = np.zeros(count, dtype=bool)
        self.asked = []
        for name, values in self.truth.items():
            setattr(self, name, np.zeros_like(values))

    def need(self, positions=None):
        at = np.arange(self.count) if positions is None else positions
        self.known[at] = True
        self.asked.append(len(at))
        for name, values in self.truth.items():
            getattr(self, name)[at] = values[at]


def reference(pool, own, *, carve_test, task, seed, validation_rows, max_length):
    """The rules on whole tables: every row is known from the start."""
    count, room = pool.count, max_length - task.max_new_tokens
    good, prompts = pool.truth["usable"], pool.truth["prompts"]
    keys = pool.truth["keys"]
    fits = good & (prompts <= room)
    left = good.copy()
    test = None
    if carve_test:
        limit = task.test_rows or max(1, min(TEST_AT_MOST, round(TEST_FRACTION * count)))
        order = shuffled(count, TEST_SEED, TEST)
        test = np.sort(order[fits[order]][:limit])
        left &= ~np.isin(keys, keys[test])
    if task.train_rows is not None:
        order = shuffled(count, seed, TRAIN)
        left[order[left[order]][task.train_rows :]] = False
    source = pool if own is None else own
    usable = left & fits if own is None else own.truth["usable"] & (own.truth["prompts"] <= room)
    order = shuffled(source.count, seed, VALIDATION)
    validation = np.sort(order[usable[order]][:validation_rows])
    left &= ~np.isin(keys, source.truth["keys"][validation])
    return np.flatnonzero(left & (prompts + pool.truth["responses"] <= max_length)), validation, test


@pytest.mark.parametrize("train_rows", [None, 60, 399, 1000])
@pytest.mark.parametrize("carve_test", [False, True])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("prompts", [None, 90])
def test_the_same_rows_are_drawn_as_if_all_were_known(train_rows, carve_test, own, prompts):
    for seed in range(3):
        pool = TablePool(400, seed, prompts)
        validation = TablePool(50, seed + 100, prompts) if own else None
        settings = {
            "carve_test": carve_test,
            "task": Limits(train_rows, 15 if seed else None),
            "seed": seed,
            "validation_rows": 12,
            "max_length": 24,
        }
        wanted = reference(pool, validation, **settings)
        parts = split(pool, validation, **settings)
        for found, expected in zip((parts.train, parts.validation, parts.test), wanted, strict=True):
            assert (found is None and expected is None) or found.tolist() == expected.tolist()
        assert parts.counts["train"] == len(wanted[0])
        assert parts.counts["train_tokens"] == int((pool.prompts + pool.responses)[parts.train].sum())


def test_a_bounded_train_asks_for_the_rows_it_draws_and_few_more():
    pool = TablePool(100_000, 0)
    split(pool, None, carve_test=False, task=Limits(500), seed=0, validation_rows=20, max_length=24)
    assert 500 <= pool.known.sum() <= 700


def test_an_unbounded_train_asks_for_all_rows_at_once():
    pool = TablePool(1000, 0)
    split(pool, None, carve_test=True, task=Limits(), seed=0, validation_rows=20, max_length=24)
    assert pool.asked[0] == 1000


def test_of_few_rows_a_fifth_validates_but_where_more_are_asked_for_and_leave_enough_to_train_on():
    def parts(rows: int, wanted: int | None):
        pool = TablePool(rows, 0)
        usable = int((pool.truth["usable"] & (pool.truth["prompts"] <= 24 - Limits().max_new_tokens)).sum())
        options = {"carve_test": False, "task": Limits(), "seed": 0, "max_length": 24}
        return split(pool, None, validation_rows=wanted, **options), usable

    few, usable = parts(50, 100)
    assert len(few.validation) == usable // 5 and len(few.train) > len(few.validation)
    enough, usable = parts(50, 10)
    assert len(enough.validation) == 10 <= usable / 2
    default, usable = parts(150, None)
    assert usable > 80 and len(default.validation) == usable // 5
    assert len(parts(800, None)[0].validation) == 64


def test_one_row_cannot_train_and_validate():
    pool = TablePool(50, 0)
    pool.truth["usable"][:] = False
    pool.truth["usable"][7] = True
    pool.truth["prompts"][7] = 3
    # Of a file of one row without a test split, that row is the test.
    with pytest.raises(UserError, match="no usable row is left to train and to validate with; give more rows"):
        split(pool, None, carve_test=True, task=Limits(), seed=0, validation_rows=None, max_length=24)
    with pytest.raises(UserError, match="one usable row is left to train and to validate with; give more rows"):
        split(pool, None, carve_test=False, task=Limits(), seed=0, validation_rows=4, max_length=24)


def test_smaller_proxies_are_part_of_larger_ones():
    small, large = (set(proxy_rows(100, fraction, seed=3)) for fraction in (0.1, 0.5))
    assert len(small) == 10
    assert small < large
    assert len(proxy_rows(3, 0.01, seed=0)) == 1


@pytest.mark.parametrize(("carve_test", "own"), [(True, False), (False, False), (False, True)])
def test_rows_that_share_one_prompt_are_told_as_the_reason(carve_test, own):
    pool, validation = TablePool(30, 0, prompts=1), TablePool(30, 1, prompts=1) if own else None
    with pytest.raises(UserError, match=r"no row is left to .*: all \d+ rows have the same prompt") as caught:
        split(pool, validation, carve_test=carve_test, task=Limits(), seed=0, validation_rows=4, max_length=24)
    assert "max_length" not in str(caught.value)


@pytest.mark.parametrize("held", [[], [7], [3, 3, 2**63], list(range(50))])
def test_keys_are_found_among_others_however_many_there_are(held, monkeypatch):
    monkeypatch.setattr("raylora.data.split._KEYS_AT_ONCE", 4)
    keys = np.array([3, 7, 49, 50, 2**63, 2**64 - 1, 0, 3, 7], dtype=np.uint64)
    assert among(keys, np.array(held, dtype=np.uint64)).tolist() == [key in held for key in keys.tolist()]
