"""Grid search: every configuration of the space, in its order."""

from __future__ import annotations

from typing import ClassVar

from .base import SpaceSearcher


class GridSearch(SpaceSearcher):
    """The configurations of the space one after the other, each once; with as many trials as there are, all of them.

    Arguments as for `SpaceSearcher`. Neither the seed nor the values observed change the order: it is that of the
    knobs' values, the last knob changing fastest.
    """

    name: ClassVar[str] = "grid"
    summary: ClassVar[str] = "every configuration of the space in turn: for sweeps"
    learns: ClassVar[bool] = False
    _next = 0

    def _propose(self, trial_id: str) -> int | None:
        while self._next in self._seen:
            self._next += 1
        return self._next if self._next < len(self._space()) else None
