from __future__ import annotations

from typing import Any

from searchers.grid import GridSearch
from searchers.testing import Make, SearcherConformance, drive, small_space


class TestGridSearch(SearcherConformance):
    searcher = GridSearch

    def test_another_seed_gives_other_suggestions(self, make: Make, options: dict[str, Any]) -> None:
        """A grid has one order."""
        names = list("abcdef")
        assert drive(make(**{**options, "seed": 1}), names) == drive(make(**{**options, "seed": 2}), names)


def test_it_proposes_the_whole_space_in_its_order() -> None:
    space = small_space()
    searcher = GridSearch(space=space, metric="score", mode="max")
    searcher.exclude([3])
    suggested = drive(searcher, [f"t{i}" for i in range(len(space))])
    assert suggested[:-1] == [space.decode(i) for i in range(len(space)) if i != 3]
    assert suggested[-1] == "FINISHED"
