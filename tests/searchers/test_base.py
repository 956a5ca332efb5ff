from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher

from searchers.base import Observation
from searchers.latent import LatentBOSearch
from searchers.random import RandomSearch
from searchers.testing import drive, small_space


def searcher(**options: Any) -> RandomSearch:
    return RandomSearch(**{"space": small_space(), "metric": "score", "mode": "max", "seed": 0, **options})


def test_repeated_values_are_averaged_over_all_trials() -> None:
    merged = Observation(3, 1.0).merged(Observation(3, 2.0)).merged(Observation(3, 6.0))
    assert (merged.index, merged.value, merged.count) == (3, 3.0, 3)


def test_reported_errors_shrink_as_those_of_a_mean() -> None:
    merged = Observation(0, 1.0, error=0.3).merged(Observation(0, 1.0, error=0.4))
    assert merged.error == pytest.approx(0.25)
    assert merged.merged(Observation(0, 1.0, error=0.25)).error == pytest.approx(math.hypot(0.5, 0.25) / 3)


def test_values_that_differ_are_an_error_of_their_own() -> None:
    near, far = (Observation(0, 1.0).merged(Observation(0, 1.0 + gap)).error for gap in (0.1, 0.4))
    assert far == pytest.approx(4 * near)
    assert 0.02 < near < 0.1
    # The larger of what was reported and what is seen.
    assert Observation(0, 1.0, error=2.0).merged(Observation(0, 1.1)).error == pytest.approx(1.0)


def test_equal_values_without_errors_have_none() -> None:
    assert Observation(0, 1.0).merged(Observation(0, 1.0)) == Observation(0, 1.0, count=2)


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (Observation(0, 1.0, samples=10), Observation(0, 2.0, samples=20)),
        (Observation(0, None), Observation(0, 2.0)),
        (Observation(0, 1.0), Observation(0, None)),
    ],
)
def test_what_cannot_be_averaged_is_replaced_by_the_later(first: Observation, later: Observation) -> None:
    assert first.merged(later) is later


def test_a_configuration_recorded_twice_is_one_observation() -> None:
    made = searcher()
    config = small_space().decode(4)
    made.record(config, 1.0, error=0.2)
    made.record(small_space().decode(5), 9.0)
    made.record(config, 3.0, error=0.2)
    assert [(o.index, o.value, o.count) for o in made.observations] == [(5, 9.0, 1), (4, 2.0, 2)]


def test_a_trial_reports_its_error_under_the_metric_with_se() -> None:
    made = searcher()
    made.suggest("a")
    made.on_trial_result("a", {"score": 0.5, "score_se": 0.1})
    made.on_trial_complete("a")
    assert (made.observations[0].value, made.observations[0].error) == (0.5, 0.1)


@pytest.mark.parametrize("error", [-1.0, float("nan"), float("inf"), None, "wide"])
def test_an_error_that_is_no_error_counts_as_none(error: Any) -> None:
    made = searcher()
    made.suggest("a")
    made.on_trial_complete("a", {"score": 0.5, "score_se": error})
    assert made.observations[0].error == 0.0


def test_a_stand_in_for_a_failed_trial_has_no_error() -> None:
    made = searcher(worst=-1.0)
    made.suggest("a")
    made.on_trial_complete("a", {"score": float("nan"), "score_se": 0.1})
    assert (made.observations[0].value, made.observations[0].error) == (-1.0, 0.0)


def losses_of(made: RandomSearch) -> list[float | None]:
    return [o.loss for o in made.observations]


def test_the_validation_loss_is_kept_beside_the_value() -> None:
    made = searcher(worst=0.0)
    for name, result in (
        ("a", {"score": 0.0, "validation_loss": 1.5}),
        ("b", {"score": 0.0, "diverged": True}),
        ("c", {"failed": True}),
        ("d", {"score": 0.0}),
    ):
        made.suggest(name)
        made.on_trial_complete(name, result)
    assert losses_of(made) == [1.5, math.inf, math.inf, None]


def test_a_loss_that_is_the_objective_is_not_counted_twice() -> None:
    made = searcher(metric="validation_loss", mode="min")
    made.suggest("a")
    made.on_trial_complete("a", {"validation_loss": 1.5, "validation_loss_se": 0.1})
    made.record(small_space().decode(4), 2.0, error=0.1, loss=2.0)
    assert losses_of(made) == [None, None]
    assert [(merit, error) for _, merit, error in made.evidence] == [(-1.5, 0.1), (-2.0, 0.1)]


def test_losses_of_a_repeated_configuration_are_averaged() -> None:
    assert Observation(0, 1.0, loss=1.0).merged(Observation(0, 1.0, loss=2.0)).loss == 1.5
    assert Observation(0, 1.0, loss=1.0).merged(Observation(0, 1.0)).loss is None


def test_excluded_configurations_are_never_proposed() -> None:
    space, made = small_space(), searcher()
    made.exclude(np.arange(10))
    proposed = drive(made, list("ab"))
    assert {space.encode(config) for config in proposed} == {10, 11}
    assert made.suggest("c") == Searcher.FINISHED
    assert len(made.observations) == 2, "what is excluded is not observed"


def test_what_is_asked_for_is_proposed_although_excluded() -> None:
    made = searcher()
    made.exclude([3])
    made.enqueue([small_space().decode(3)])
    assert made.suggest("a") == small_space().decode(3)


def test_options_are_those_of_the_constructors_without_what_all_share() -> None:
    class Deeper(LatentBOSearch):
        def __init__(self, *, depth: int = 2, **others: Any) -> None:
            super().__init__(**others)

    shared = LatentBOSearch.options()
    assert {"width", "n_initial"} <= shared and not {"space", "metric", "seed"} & shared
    assert Deeper.options() == {"depth", *shared}
    assert RandomSearch.options() == frozenset()


def test_options_that_a_searcher_refuses_are_told_by_check() -> None:
    LatentBOSearch.check({"width": 8})
    with pytest.raises(ValueError, match="width: 0 is too small"):
        LatentBOSearch.check({"width": 0})


def test_another_seed_draws_another_stream() -> None:
    def drawn(seed: int) -> list[Any]:
        found = searcher(seed=5)
        found.reseed(seed)
        return [found.suggest(str(number)) for number in range(4)]

    assert drawn(0) == drawn(0) != drawn(1)
