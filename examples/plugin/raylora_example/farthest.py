"""A searcher: as far from everything tried as it gets."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from searchers.base import Common, SpaceSearcher


class FarthestSearch(SpaceSearcher):
    """Each configuration is the farthest, of a random sample, from those before; values do not matter.

    Args:
        sample: configurations that are looked at for each suggestion.
        common: as for `SpaceSearcher`.

    Raises:
        ValueError: a sample of none.
    """

    name = "farthest"
    summary = "fills the space: each configuration is far from all before"

    def __init__(self, *, sample: int = 64, **common: Unpack[Common]) -> None:
        if sample < 1:
            raise ValueError(f"sample: {sample!r} is too small; use 1 or more")
        self.sample = sample
        super().__init__(**common)

    def _propose(self, trial_id: str) -> int | None:
        space = self._space()
        drawn = space.sample(self.rng, self.sample, exclude=self._seen)
        if not self._seen or not drawn:
            return drawn[0] if drawn else None
        tried = space.features(sorted(self._seen))  # (tried, d)
        gaps = np.abs(space.features(drawn)[:, None] - tried[None]).sum(axis=2)  # (drawn, tried)
        return drawn[int(gaps.min(axis=1).argmax())]
