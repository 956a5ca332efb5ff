"""Which trials have a part in the next pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Served(Protocol):
    """Who wants to be in a pass.

    `served`: tokens that it has had. `place`: its rows stand in the order of places, whoever came first.
    """

    served: float
    place: int


Who = TypeVar("Who", bound=Served)


def choose(waiting: Sequence[Who], size: Callable[[Who], tuple[int, int]], most_tokens: int) -> list[Who]:
    """Those of the next pass, in the order of their places: who has had fewest tokens, and all that fit beside.

    Who is ahead of the last one by more than its own micro-batch lets others go first, so that those who differ in
    their batches use the host's time in equal parts and are through at about the same time.

    Args:
        waiting: at least one.
        size: rows and length of one's next micro-batch.
        most_tokens: bound on the padded tokens of a pass; the first one is always taken.
    """
    ordered = sorted(waiting, key=lambda one: (one.served, one.place))
    least = ordered[0].served
    chosen: list[Who] = []
    rows = width = 0
    for one in ordered:
        more, length = size(one)
        fits = (rows + more) * max(width, length) <= most_tokens
        if not chosen or (fits and one.served <= least + more * length):
            chosen.append(one)
            rows, width = rows + more, max(width, length)
    return sorted(chosen, key=lambda one: one.place)
