"""Random search (Bergstra & Bengio, JMLR 2012) without repetition."""

from __future__ import annotations

from typing import ClassVar

from .base import SpaceSearcher


class RandomSearch(SpaceSearcher):
    """Uniform draws from the space, never the same configuration twice.

    Arguments as for `SpaceSearcher`. The proposals depend on the seed and on what was proposed or recorded before,
    never on the values observed.
    """

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "uniform random search without repetition"
    learns: ClassVar[bool] = False

    def _propose(self, trial_id: str) -> int | None:
        drawn = self._space().sample(self.rng, 1, exclude=self._seen)
        return drawn[0] if drawn else None
