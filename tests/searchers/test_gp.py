from __future__ import annotations

import pytest

from searchers.gp import GPSearch
from searchers.space import Space
from searchers.testing import Make, SearcherConformance


class TestGPSearch(SearcherConformance):
    @pytest.fixture
    def make(self) -> Make:
        return lambda **options: GPSearch(**{"n_initial": 2, "fit_steps": 5, **options})


def told(per_second: bool, seconds: dict | None = None) -> list[int]:
    """Ranks that are proposed after results that are all the same to the model but for the learning rate."""
    space = Space.from_dict({"rank": [2, 64], "learning_rate": [1e-4, 1e-3, 1e-2, 1e-1]})
    searcher = GPSearch(
        space=space, metric="m", mode="max", n_initial=1, fit_steps=5, per_second=per_second, seconds=seconds
    )
    for rank in (2, 64):
        for rate, value in ((1e-4, 0.1), (1e-2, 0.4)):
            searcher.record({"rank": rank, "learning_rate": rate}, value + rank / 640)
    return [searcher.suggest(str(k))["rank"] for k in range(2)]


def test_per_second_the_cheaper_of_two_that_promise_alike_is_proposed() -> None:
    seconds = {"knobs": ("rank",), "seconds": {(2,): 1.0, (64,): 100.0}}
    assert told(False, seconds)[0] == 64
    assert told(True, seconds)[0] == 2


def test_without_predictions_seconds_do_not_count() -> None:
    assert told(True) == told(False)
    assert told(True, {"knobs": ("rank",), "seconds": {}}) == told(False)


def test_predictions_are_asked_for_where_they_count() -> None:
    assert (GPSearch.wants({}), GPSearch.wants({"per_second": True})) == (frozenset(), {"seconds"})
    with pytest.raises(ValueError, match="per_second: 1 is neither true nor false"):
        GPSearch(per_second=1)
