"""Which rows train, validate and test: draws and rules on counts, lengths and hashes; no row is seen here.

How rows are split, all of it reproducible:

- test: the source's own test split; where there is none, 10 % of train (at most 1,000 rows, or the task's
  `test_rows`), drawn with a constant seed, so that no other seed of a later run ever trains on them;
- validation: the source's own validation split or else rows of train, drawn with `seed`; of train no more than a fifth,
  but where more are asked for and leave a fifth to train on;
- train: the rest, in source order, without rows whose prompt also occurs in validation or in a test set that
  was carved from train;
- proxy: a subset of train drawn with `seed`; for one seed, a smaller fraction is a subset of a larger one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raylora.errors import UserError

TEST_FRACTION, TEST_AT_MOST, TEST_SEED = 0.1, 1000, 0
DEFAULT_VALIDATION_ROWS = 64  # where nobody says how many
_KEYS_AT_ONCE = 2**16
_VALIDATION, _PROXY, _TRAIN, _TEST = range(4)  # one random stream for each draw


class Pool(Protocol):
    """The rows of a source split, by position; what is told of a row holds once `need` was asked for it.

    Attributes:
        count: rows in it.
        usable: mask `(count,)` of the rows that can be used at all.
        prompts, responses: their tokens, `(count,)`.
        keys: hash of the rendered prompt, `(count,)`.
    """

    count: int
    usable: np.ndarray
    prompts: np.ndarray
    responses: np.ndarray
    keys: np.ndarray

    def need(self, positions: np.ndarray | None = None) -> None:
        """Tokenise the rows at these positions, or all, as far as that is not done."""
        ...


class Limits(Protocol):
    """Of a task: see `rows.RowSource`."""

    max_new_tokens: int
    train_rows: int | None
    test_rows: int | None


def shuffled(count: int, seed: int, stream: int) -> np.ndarray:
    """The positions of `count` rows in the order of one draw; `stream` tells draws of one seed apart."""
    return np.random.default_rng([seed, stream]).permutation(count)


def proxy_rows(count: int, fraction: float, seed: int) -> np.ndarray:
    """Sorted positions of the proxy subset in a train split of `count` rows.

    Their number is rounded to the nearest, and at least one. For one seed a smaller fraction gives a subset of a
    larger one.
    """
    size = max(1, round(fraction * count))
    return np.sort(shuffled(count, seed, _PROXY)[:size])


def among(keys: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Mask `(n,)` of the keys that are in `held`; no copy of all keys is sorted for it, as `numpy.isin` would."""
    found, held = np.zeros(len(keys), dtype=bool), np.unique(held)
    if len(held):
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[start : start + _KEYS_AT_ONCE]
            at = np.minimum(np.searchsorted(held, part), len(held) - 1)
            found[start : start + len(part)] = held[at] == part
    return found


def _first(pool: Pool, order: np.ndarray, wanted: int, good: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The first `wanted` of the positions in `order` that are good.

    No more rows are asked for than that takes, but for a few in reserve.
    """
    found = np.empty(0, dtype=np.int64)
    at = 0
    while len(found) < wanted and at < len(order):
        missing = wanted - len(found)
        part = order[at : at + missing + missing // 50 + 32]
        pool.need(part)
        found = np.concatenate([found, part[good(part)]])
        at += len(part)
    return found[:wanted]


@dataclass
class Parts:
    """Positions, ascending: `train` and a carved `test` in the pool, `validation` in the pool that it was drawn from.

    Attributes:
        test: None where the source has a test split of its own, still unread.
        counts: rows kept and dropped, as far as they had to be looked at; tokens of train.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray | None
    counts: dict[str, int]


def split(
    pool: Pool,
    own_validation: Pool | None,
    *,
    carve_test: bool,
    task: Limits,
    seed: int,
    validation_rows: int | None,
    max_length: int,
) -> Parts:
    """Who trains, validates and tests; see the module for the rules."""
    count, room = pool.count, max_length - task.max_new_tokens
    if task.train_rows is None or task.train_rows >= count:
        pool.need()
    left = np.ones(count, dtype=bool)  # rows not spoken for yet
    test, held_out = None, np.empty(0, dtype=pool.keys.dtype)
    if carve_test:
        limit = task.test_rows or max(1, min(TEST_AT_MOST, round(TEST_FRACTION * count)))
        order = shuffled(count, TEST_SEED, _TEST)
        test = np.sort(_first(pool, order, limit, lambda at: pool.usable[at] & (pool.prompts[at] <= room)))
        left[test] = False
        held_out = pool.keys[test]

    def clean(at: np.ndarray) -> np.ndarray:
        return pool.usable[at] & ~among(pool.keys[at], held_out)

    if task.train_rows is None:
        unique = pool.usable & ~among(pool.keys, held_out)
        duplicates = int((left & pool.usable & ~unique).sum())
        left &= unique
    else:
        order = shuffled(count, seed, _TRAIN)
        order = order[left[order]]
        drawn = _first(pool, order, task.train_rows, clean)
        seen = order[: np.flatnonzero(order == drawn[-1])[0] + 1] if len(drawn) else order
        duplicates = int((pool.usable[seen] & ~clean(seen)).sum())
        left[:] = False
        left[drawn] = True

    validation, considered, eligible = _validation(
        pool, own_validation, left, seed=seed, wanted=validation_rows, room=room, max_length=max_length
    )
    before = int(left.sum())
    held_out = (own_validation or pool).keys[validation]
    left &= ~among(pool.keys, held_out)
    duplicates += before - int(left.sum()) - (len(validation) if own_validation is None else 0)

    remaining, lengths = int(left.sum()), pool.prompts + pool.responses
    train = np.flatnonzero(left & (lengths <= max_length))
    if not remaining:
        raise UserError.at("task.path", f"no row is left to train on: {_all_held_out(pool, duplicates)}")
    if not len(train):
        raise UserError.at(
            "task.max_length", f"{max_length} leaves no train row of {remaining}; raise max_length", value=max_length
        )
    return Parts(
        train,
        validation,
        test,
        {
            "source": count,
            "train": len(train),
            "validation": len(validation),
            "train_dropped_too_long": remaining - len(train),
            "train_dropped_duplicate": duplicates,
            "validation_dropped_too_long": considered - eligible,
            "train_tokens": int(lengths[train].sum(dtype=np.int64)),
            "train_responses_over_max_new_tokens": int((pool.responses[train] > task.max_new_tokens).sum()),
        },
    )


def _validation(
    pool: Pool, own: Pool | None, left: np.ndarray, *, seed: int, wanted: int | None, room: int, max_length: int
) -> tuple[np.ndarray, int, int]:
    """Positions of the validation rows, how many rows were considered and how many of them could have been drawn."""
    if own is None:
        considered = left & pool.usable
        source = pool
    else:
        own.need()
        considered, source = own.usable, own
    order = shuffled(source.count, seed, _VALIDATION)
    candidates = order[(considered & (source.prompts <= room))[order]]
    if own is None and len(candidates) <= (wanted or DEFAULT_VALIDATION_ROWS) and _one_prompt(pool):
        raise UserError.at("task.path", f"no row is left to validate with: {_all_held_out(pool, 0)}")
    if own is None and (len(candidates) == 1 or not considered.any()):
        few = "one" if len(candidates) else "no"
        raise UserError.at("task.path", f"{few} usable row is left to train and to validate with; give more rows")
    fifth = max(1, len(candidates) // 5)
    if wanted is None:
        wanted = DEFAULT_VALIDATION_ROWS if own is not None else min(DEFAULT_VALIDATION_ROWS, fifth)
    elif own is None and 5 * wanted > 4 * len(candidates):
        wanted = fifth
    if not len(candidates):
        raise UserError.at(
            "task.max_length",
            f"{max_length} leaves no validation prompt of at most {room} tokens; raise max_length",
            value=max_length,
        )
    return np.sort(candidates[:wanted]), int(considered.sum()), len(candidates)


def _one_prompt(pool: Pool) -> bool:
    keys = pool.keys[pool.usable]
    return len(keys) > 1 and bool((keys == keys[0]).all())


def _all_held_out(pool: Pool, duplicates: int) -> str:
    """Why all rows of a pool went with those that were held out, and the remedy."""
    if _one_prompt(pool):
        count = int(pool.usable.sum())
        why = f"all {count} rows have the same prompt, and a prompt of validation or test is not trained on"
    else:
        why = f"the prompts of all {duplicates} rows are also in validation or test"
    return f"{why}; give rows with different prompts, or validation and test rows of other prompts"


def test_rows(pool: Pool, limit: int | None, room: int) -> np.ndarray:
    """Positions of the test rows in a test split of the source's own: those whose prompt fits, at most `limit`."""
    pool.need()
    rows = np.flatnonzero(pool.usable & (pool.prompts <= room))
    if limit is None:
        return rows
    order = shuffled(len(rows), TEST_SEED, _TEST)
    return rows[np.sort(order[:limit])]
