"""The configurations that a surrogate chooses from, and what is known of them without a language model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..space import Space
from .setup import Setup

# Typical lengthscales of the knobs: a decade of the rate matters, the rest of a range less than its width.
_LENGTH_RATE, _LENGTH_ORDINAL, _LENGTH_CATEGORICAL = 0.7, 1.5, 2.0

# Candidates of which first points are chosen, beside the best of each hypothesis.
_SHORTLIST = 512


def spread_points(
    space: Space, rng: np.random.Generator, n: int, taken: Sequence[int], exclude: set[int], tries: int = 32
) -> list[int]:
    """`n` space-filling random points: each the farthest of `tries` draws from `taken` and from each other.

    Mitchell's best-candidate sampling, on the space's coordinates. Fewer than `n` only when the space is used up.
    """
    chosen: list[int] = []
    for _ in range(n):
        drawn = space.sample(rng, tries, exclude=exclude | set(chosen))
        if not drawn:
            break
        others = [*taken, *chosen]
        if others:
            gaps = np.abs(space.features(drawn)[:, None] - space.features(others)[None]).sum(axis=2).min(axis=1)
            chosen.append(drawn[int(gaps.argmax())])
        else:
            chosen.append(drawn[0])
    return chosen


class Candidates:
    """The pool of a space, and what is known of its configurations without a language model.

    Attributes:
        pool: `(c,)` indices; the whole space where it has at most `setup.pool` configurations.
        lengthscales: `(d,)` typical ones of the coordinates. log_prior: `(H,)` of the hypotheses.
    """

    def __init__(self, space: Space, setup: Setup, seed: int, limit: int | None = None) -> None:
        from .knowledge import Knowledge
        from .learned import shipped
        from .transfer import TransferredMeans

        self.space, self.setup = space, setup
        size = min(setup.pool, setup.pool if limit is None else limit)
        if len(space) <= size:
            self.pool = np.arange(len(space))
        else:
            self.pool = np.sort(space.sample(np.random.default_rng([seed, 0xCA]), size))
        self.knowledge = None
        if setup.knowledge:
            self.knowledge = Knowledge(
                space,
                setup.samples,
                setup.parameters,
                setup.prior,
                setup.ratios,
                setup.prior_shift,
                setup.scales or {},
                setup.learned or shipped(),
                setup.family,
            )
            self._shifts, self._weights, self.log_prior = self.knowledge.hypotheses()
        else:
            self.log_prior = np.zeros(1)
        self._transfer = None
        if setup.learn_from:
            self._transfer = TransferredMeans(space, setup.learn_from, setup.samples, setup.scales)
        if self._transfer is not None:
            self.log_prior = self._transfer.log_prior(self.log_prior)
        self.lengthscales = np.concatenate([np.full(k, length) for k, length in self._blocks()] or [np.ones(1)])
        self.x, self.means = self.describe(self.pool)
        # Worked out here, because `first` is called where nobody may wait.
        self._expected = self.means @ np.exp(self.log_prior)
        self._best_of_each = np.unique(self.means.argmax(axis=0))

    def _blocks(self) -> list[tuple[int, float]]:
        """Columns and typical lengthscale of each searched knob."""
        found = []
        for knob in self.space.knobs:
            if len(knob) > 1:
                if knob.kind == "categorical":
                    found.append((len(knob), _LENGTH_CATEGORICAL))
                else:
                    found.append((1, _LENGTH_RATE if knob.name == "learning_rate" else _LENGTH_ORDINAL))
        return found

    def describe(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates `(n, d)` and prior means `(n, H)`.

        The coordinate of the learning rate is its offset from where knowledge expects the optimum, so that what is
        learned about one variant, rank or batch size holds for the others; without knowledge it is the rate itself.
        """
        from .knowledge import prior_means

        which = [int(i) for i in indices]
        features = self.space.features(which)
        columns = None if self.knowledge is None else self.knowledge.columns(which)
        parts, at = [], 0
        for knob in self.space.knobs:
            width = len(knob) if knob.kind == "categorical" else 1
            block = features[:, at : at + width]
            at += width
            if len(knob) == 1:
                continue
            if knob.name == "learning_rate" and knob.kind == "ordinal":
                if columns is not None:
                    block = columns[:, :1]
                elif knob.values[0] > 0:
                    low, high = math.log10(knob.values[0]), math.log10(knob.values[-1])
                    block = block * (high - low)
            parts.append(block)
        x = np.concatenate(parts, axis=1) if parts else np.zeros((len(which), 1))
        means = np.zeros((len(which), 1))
        if self.knowledge is not None and columns is not None:
            means = prior_means(columns, self._shifts, self._weights, self.knowledge.learned.shape)
        if self._transfer is not None:
            means = np.concatenate([means, self._transfer.means(which)], axis=1)
        return x, means

    def first(self, n: int, taken: Sequence[int], exclude: set[int], rng: np.random.Generator) -> list[int]:
        """Where to begin: what is known suggests it, or else space-filling random points."""
        from .knowledge import first_points

        if self.knowledge is None and self._transfer is None:
            return spread_points(self.space, rng, n, taken, exclude | set(taken))
        excluded = exclude | set(taken)
        free = ~np.isin(self.pool, list(excluded))
        # Equal candidates in an order of the seed's, and behind them those that are taken.
        promising, held = rng.permutation(self._promising(free)), self._rows_of(taken)
        rows = np.concatenate([promising, held])
        places = list(range(len(promising), len(rows)))
        found = first_points(self.means[rows], self.log_prior, places, free[rows], n)
        chosen = [int(self.pool[rows[at]]) for at in found]
        missing = n - len(chosen)
        return chosen + (self.space.sample(rng, missing, exclude=excluded | set(chosen)) if missing else [])

    def _promising(self, free: np.ndarray) -> np.ndarray:
        """Free rows that a first point may be: the best by the expected prior mean, and the best of each hypothesis."""
        if len(self.pool) <= _SHORTLIST:
            return np.flatnonzero(free)
        expected = np.where(free, self._expected, -np.inf)
        rows = np.union1d(np.argpartition(-expected, _SHORTLIST)[:_SHORTLIST], self._best_of_each)
        return rows[free[rows]]

    def _rows_of(self, indices: Sequence[int]) -> np.ndarray:
        """Rows of those that are in the pool."""
        wanted = np.array(indices, dtype=np.int64)
        rows = np.minimum(np.searchsorted(self.pool, wanted), len(self.pool) - 1)
        return rows[self.pool[rows] == wanted]
