"""Conformance suite that every searcher passes: subclass `SearcherConformance` and override one fixture.

Example::

    class TestMySearch(SearcherConformance):
        @pytest.fixture
        def make(self):
            return lambda **options: MySearch(**options)

`make(**options)` is called with any of `space, metric, mode, seed, points_to_evaluate, worst`, or with nothing (a blank
searcher to restore into). Proposals must depend on the seed and the order of results alone.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from .base import SpaceSearcher
from .space import Space

Make = Callable[..., SpaceSearcher]

SMALL: dict[str, Any] = {
    "variant": ["lora", "dora"],
    "rank": [2, 4, 8],
    "alpha_ratio": 2.0,
    "learning_rate": [1e-4, 1e-3],
}


def small_space() -> Space:
    """12 configurations: a categorical knob, two ordinal ones and a fixed one."""
    return Space.from_dict(SMALL)


def objective(config: dict[str, Any]) -> float:
    """A smooth value to maximise, 1 at most."""
    gap = math.log10(config["learning_rate"]) + 3.0
    return 1.0 - 0.3 * gap**2 - 0.1 * (math.log2(config["rank"]) - 2.0) ** 2 - 0.05 * (config["variant"] == "dora")


def drive(searcher: SpaceSearcher, names: list[str], value: Callable[[dict[str, Any]], float] = objective) -> list[Any]:
    """Runs trials one after the other; returns what was suggested."""
    suggested = []
    for name in names:
        config = searcher.suggest(name)
        suggested.append(config)
        if isinstance(config, dict):
            searcher.on_trial_complete(name, {"score": value(config)})
    return suggested


class SearcherConformance:
    """Tests of the common contract; see the module's docstring."""

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError("override the fixture `make`")

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"space": small_space(), "metric": "score", "mode": "max", "seed": 3}

    def test_suggestions_are_configurations_of_the_space(self, make: Make, options: dict[str, Any]) -> None:
        for config in drive(make(**options), list("abcd")):
            assert config in options["space"]
            assert config["alpha_ratio"] == 2.0

    def test_same_seed_gives_the_same_suggestions(self, make: Make, options: dict[str, Any]) -> None:
        names = list("abcde")
        assert drive(make(**options), names) == drive(make(**options), names)

    def test_never_repeats_and_finishes_when_the_space_is_exhausted(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        if not searcher.never_repeats:
            pytest.skip("this searcher may repeat a configuration")
        suggested = drive(searcher, [f"t{i}" for i in range(13)])
        keys = [options["space"].key(c) for c in suggested[:12]]
        assert len(set(keys)) == 12
        assert suggested[12] == Searcher.FINISHED

    def test_restores_into_a_blank_searcher_and_goes_on_identically(
        self, make: Make, options: dict[str, Any], tmp_path: Path
    ) -> None:
        first = make(**options)
        drive(first, list("abc"))
        running = first.suggest("running")
        first.save(str(tmp_path / "state.pkl"))
        second = make()
        second.restore(str(tmp_path / "state.pkl"))
        for searcher in (first, second):
            searcher.on_trial_complete("running", {"score": objective(running)})  # type: ignore[arg-type]
        assert drive(first, list("defg")) == drive(second, list("defg"))

    def test_pickles_in_the_middle_of_a_run(self, make: Make, options: dict[str, Any]) -> None:
        first = make(**options)
        drive(first, list("abc"))
        second = pickle.loads(pickle.dumps(first))
        assert drive(first, list("de")) == drive(second, list("de"))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "broken"])
    def test_goes_on_after_a_value_that_is_not_finite(self, make: Make, options: dict[str, Any], value: Any) -> None:
        searcher = make(**options)
        first = searcher.suggest("bad")
        searcher.on_trial_complete("bad", {"score": value})
        later = drive(searcher, list("abc"))
        assert all(isinstance(config, dict) for config in later)
        if searcher.never_repeats:
            assert first not in later
        assert searcher.observations[0].value is None

    def test_goes_on_after_errors(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        failed = []
        for name in "ab":
            failed.append(searcher.suggest(name))
            searcher.on_trial_complete(name, None, error=True)
        later = drive(searcher, list("cde"))
        assert all(isinstance(config, dict) for config in later)
        if searcher.never_repeats:
            assert not any(config in failed for config in later)

    def test_a_failed_trial_counts_as_worst_where_that_is_known(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options, worst=-5.0)
        searcher.suggest("a")
        searcher.on_trial_complete("a", None, error=True)
        searcher.suggest("b")
        searcher.on_trial_complete("b", {"score": float("nan"), "worst": -7.0})
        assert [o.value for o in searcher.observations] == [-5.0, -7.0]
        assert len(drive(searcher, list("cd"))) == 2

    def test_an_early_stopped_trial_is_observed_at_its_last_value(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        searcher.suggest("a")
        searcher.on_trial_result("a", {"score": 0.1, "training_iteration": 1, "samples": 10})
        searcher.on_trial_result("a", {"score": 0.2, "training_iteration": 2, "samples": 20})
        searcher.on_trial_complete("a", {"score": 0.2, "training_iteration": 2, "samples": 20})
        assert [(o.value, o.samples) for o in searcher.observations] == [(0.2, 20)]

    def test_running_trials_are_not_proposed_again(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        drive(searcher, list("ab"))
        running = [searcher.suggest(name) for name in "cdef"]
        assert all(isinstance(config, dict) for config in running)
        assert set(searcher.pending) == set("cdef")
        if searcher.never_repeats:
            assert len({options["space"].key(config) for config in running}) == 4
        for name, config in zip("fdec", [running[i] for i in (3, 1, 2, 0)], strict=True):
            searcher.on_trial_complete(name, {"score": objective(config)})  # type: ignore[arg-type]
        assert searcher.pending == {}
        assert len(drive(searcher, ["g"])) == 1

    def test_asking_twice_for_one_trial_gives_the_same_answer(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        assert searcher.suggest("a") == searcher.suggest("a")

    def test_unknown_and_repeated_completions_are_ignored(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        drive(searcher, ["a"])
        searcher.on_trial_complete("a", {"score": 9.0})
        searcher.on_trial_complete("stranger", {"score": 9.0})
        assert [o.value for o in searcher.observations] != [9.0]
        assert len(searcher.observations) == 1

    @pytest.mark.parametrize("mode", ["min", "max"])
    def test_works_in_both_modes(self, make: Make, options: dict[str, Any], mode: str) -> None:
        sign = 1.0 if mode == "max" else -1.0
        searcher = make(**{**options, "mode": mode})
        assert all(isinstance(c, dict) for c in drive(searcher, list("abcd"), lambda c: sign * objective(c)))

    def test_equal_values_are_no_obstacle(self, make: Make, options: dict[str, Any]) -> None:
        assert all(isinstance(c, dict) for c in drive(make(**options), list("abcde"), lambda config: 0.0))

    def test_a_space_with_one_configuration(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**{**options, "space": Space.from_dict({"rank": 8, "learning_rate": 1e-4})})
        config = searcher.suggest("a")
        assert config == {"rank": 8, "learning_rate": 1e-4}
        searcher.on_trial_complete("a", {"score": 0.5})
        if searcher.never_repeats:
            assert searcher.suggest("b") == Searcher.FINISHED

    def test_points_to_evaluate_come_first(self, make: Make, options: dict[str, Any]) -> None:
        points = [options["space"].decode(i) for i in (7, 2)]
        searcher = make(**options, points_to_evaluate=points)
        assert drive(searcher, list("abc"))[:2] == points

    def test_enqueued_configurations_come_first_also_after_a_restore(
        self, make: Make, options: dict[str, Any], tmp_path: Path
    ) -> None:
        first = make(**options)
        drive(first, list("ab"))
        lost = first.suggest("lost")
        first.save(str(tmp_path / "state.pkl"))
        second = make()
        second.restore(str(tmp_path / "state.pkl"))
        second.enqueue([lost])  # type: ignore[list-item]
        assert second.pending == {}
        assert second.suggest("again") == lost
        second.on_trial_complete("again", {"score": 0.3})
        assert len(drive(second, list("cd"))) == 2

    def test_recorded_trials_are_known_and_not_proposed(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        space = options["space"]
        known = [space.decode(i) for i in range(8)]
        for config in known:
            searcher.record(config, objective(config))
        assert len(searcher.observations) == 8
        suggested = drive(searcher, list("abcd"))
        assert all(isinstance(config, dict) for config in suggested)
        if searcher.never_repeats:
            assert not any(config in known for config in suggested)
            assert searcher.suggest("e") == Searcher.FINISHED

    def test_a_configuration_outside_the_space_is_refused_by_name(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        with pytest.raises(ValueError, match="rank: 3 is not in the search space"):
            searcher.record({**options["space"].decode(0), "rank": 3}, 0.5)

    def test_takes_space_metric_and_mode_from_tune(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(seed=3)
        space: Space = options["space"]
        assert searcher.set_search_properties("score", "max", space.to_tune())
        assert searcher.set_search_properties("score", "max", space.to_tune()) is False
        assert drive(searcher, ["a"])[0] in space

    def test_says_what_is_missing(self, make: Make, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="space: not set"):
            make().suggest("a")
        with pytest.raises(ValueError, match="metric, mode: not set"):
            make(space=options["space"]).suggest("a")
