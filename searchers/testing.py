"""Conformance suite that every searcher passes, of this package or another, registered or not.

Give its class or its name::

    class TestMySearch(SearcherConformance):
        searcher = MySearch

or, where it needs options to be fast, override the fixture `make`. `make(**options)` is called with any of `space,
metric, mode, seed, points_to_evaluate, worst`, or with nothing (a blank searcher to restore into). Proposals must
depend on the seed and the order of results alone: not on the process either, which one test asks a second process
about.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from . import SEARCHERS
from .base import SpaceSearcher
from .space import Limit, Space

Make = Callable[..., SpaceSearcher]

SMALL: dict[str, object] = {
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


def conditional_space() -> Space:
    """10 configurations: `niter` exists for one variant of three, and `scale`, a fixed knob, for another one."""
    return Space.from_dict(
        {"variant": ["lora", "pissa", "vera"], "niter": [2, 4, 8], "scale": 0.5, "learning_rate": [1e-4, 1e-3]},
        when={"niter": {"variant": ["pissa"]}, "scale": {"variant": ["vera"]}},
    )


def conditional_objective(config: dict[str, Any]) -> float:
    """A value to maximise over `conditional_space`, 1 at most."""
    return 0.5 + 0.5 * (config.get("niter") == 4) + 0.1 * math.log10(config["learning_rate"] * 1e3)


def limited_space() -> Space:
    """9 configurations: one variant of two has half of the ranks, and one rank half of the learning rates."""
    return Space.from_dict(
        {"variant": ["lora", "pissa"], "rank": [2, 4, 64, 256], "learning_rate": [1e-4, 1e-3]},
        limits=[
            Limit("rank", (2, 4), {"variant": ["pissa"]}),
            Limit("learning_rate", (1e-4,), {"variant": ["lora"], "rank": [2, 64, 256]}),
        ],
    )


def run_proposals(searcher: SpaceSearcher) -> list[str]:
    """Keys of what a searcher over `small_space` proposes for five trials, one of which fails and one runs on."""
    space = small_space()
    keys = []
    for number in range(5):
        config = searcher.suggest(f"t{number}")
        assert isinstance(config, dict)
        keys.append(space.key(config))
        if number == 1:
            searcher.on_trial_complete("t1", None, error=True)
        elif number != 2:
            searcher.on_trial_complete(f"t{number}", {"score": objective(config)})
    return keys


def run_proposals_elsewhere(searcher: SpaceSearcher) -> list[str]:
    """`run_proposals` of a copy of the searcher, in another process with other hashes."""
    return _elsewhere().submit(run_proposals, searcher).result()


@functools.cache
def _elsewhere() -> ProcessPoolExecutor:
    """One process for all searchers: importing what they need takes longer than their proposals."""
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "7")
        pool.submit(int).result()  # it starts with the first call
    return pool


class SearcherConformance:
    """Tests of the common contract; see the module's docstring."""

    searcher: type[SpaceSearcher] | str

    @pytest.fixture
    def make(self) -> Make:
        """What makes the searcher under test."""
        return SEARCHERS[self.searcher] if isinstance(self.searcher, str) else self.searcher

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"space": small_space(), "metric": "score", "mode": "max", "seed": 3}

    def test_suggestions_are_configurations_of_the_space(self, make: Make, options: dict[str, Any]) -> None:
        for config in drive(make(**options), list("abcd")):
            assert config in options["space"]
            assert config["alpha_ratio"] == 2.0

    def test_same_seed_gives_the_same_suggestions(self, make: Make, options: Mapping[str, object]) -> None:
        names = list("abcde")
        assert drive(make(**options), names) == drive(make(**options), names)

    def test_same_seed_gives_the_same_suggestions_in_another_process(
        self, make: Make, options: Mapping[str, object]
    ) -> None:
        assert run_proposals_elsewhere(make(**options)) == run_proposals(make(**options))

    def test_another_seed_gives_other_suggestions(self, make: Make, options: Mapping[str, object]) -> None:
        names = list("abcdef")
        runs = [drive(make(**{**options, "seed": seed}), names) for seed in range(3)]
        assert runs[0] != runs[1] or runs[0] != runs[2]

    def test_never_repeats_and_finishes_when_the_space_is_exhausted(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        if not searcher.never_repeats:
            pytest.skip("this searcher may repeat a configuration")
        suggested = drive(searcher, [f"t{i}" for i in range(13)])
        keys = [options["space"].key(c) for c in suggested[:12]]
        assert len(set(keys)) == 12
        assert suggested[12] == Searcher.FINISHED

    def test_restores_into_a_blank_searcher_and_goes_on_identically(
        self, make: Make, options: Mapping[str, object], tmp_path: Path
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

    def test_restores_with_running_and_failed_trials(
        self, make: Make, options: Mapping[str, object], tmp_path: Path
    ) -> None:
        first = make(**options)
        drive(first, ["a"])
        first.suggest("failed")
        first.on_trial_complete("failed", {"score": float("nan")})
        running = {name: first.suggest(name) for name in "xyz"}
        first.save(str(tmp_path / "state.pkl"))
        second = make()
        second.restore(str(tmp_path / "state.pkl"))
        assert second.pending == running
        for searcher in (first, second):
            searcher.on_trial_complete("y", None, error=True)
            searcher.on_trial_complete("x", {"score": objective(running["x"])})  # type: ignore[arg-type]
        assert drive(first, list("bc")) == drive(second, list("bc"))
        assert second.pending == {"z": running["z"]}

    def test_restoring_takes_a_used_searcher_back(
        self, make: Make, options: Mapping[str, object], tmp_path: Path
    ) -> None:
        searcher = make(**options)
        drive(searcher, list("abc"))
        searcher.save(str(tmp_path / "state.pkl"))
        after = drive(searcher, list("def"))
        searcher.restore(str(tmp_path / "state.pkl"))
        assert drive(searcher, list("def")) == after

    def test_pickles_in_the_middle_of_a_run(self, make: Make, options: Mapping[str, object]) -> None:
        first = make(**options)
        drive(first, list("abc"))
        second = pickle.loads(pickle.dumps(first))
        assert drive(first, list("de")) == drive(second, list("de"))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "broken"])
    def test_goes_on_after_a_value_that_is_not_finite(
        self, make: Make, options: Mapping[str, object], value: object
    ) -> None:
        searcher = make(**options)
        first = searcher.suggest("bad")
        searcher.on_trial_complete("bad", {"score": value})
        later = drive(searcher, list("abc"))
        assert all(isinstance(config, dict) for config in later)
        if searcher.never_repeats:
            assert first not in later
        assert searcher.observations[0].value is None

    def test_goes_on_after_errors(self, make: Make, options: Mapping[str, object]) -> None:
        searcher = make(**options)
        failed = []
        for name in "ab":
            failed.append(searcher.suggest(name))
            searcher.on_trial_complete(name, None, error=True)
        later = drive(searcher, list("cde"))
        assert all(isinstance(config, dict) for config in later)
        if searcher.never_repeats:
            assert not any(config in failed for config in later)

    def test_what_failed_is_observed_and_not_proposed_again(self, make: Make, options: dict[str, Any]) -> None:
        searcher, space = make(**options, worst=-5.0), options["space"]
        failed = []
        for number in range(14):
            config = searcher.suggest(f"t{number}")
            if not isinstance(config, dict):
                break
            assert space.encode(config) not in failed
            fails = config["variant"] == "dora"
            if fails:
                failed.append(space.encode(config))
            searcher.on_trial_complete(
                f"t{number}", {"score": -5.0, "failed": True} if fails else {"score": objective(config)}
            )
        worst = {o.index for o in searcher.observations if o.value == -5.0}
        assert failed and worst == set(failed)

    def test_goes_on_when_nothing_ever_succeeds(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        later = drive(searcher, [f"t{i}" for i in range(8)], lambda config: float("nan"))
        assert all(config in options["space"] for config in later)
        assert [o.value for o in searcher.observations] == [None] * len(searcher.observations)

    def test_a_failed_trial_counts_as_worst_where_that_is_known(
        self, make: Make, options: Mapping[str, object]
    ) -> None:
        searcher = make(**options, worst=-5.0)
        searcher.suggest("a")
        searcher.on_trial_complete("a", None, error=True)
        searcher.suggest("b")
        searcher.on_trial_complete("b", {"score": float("nan"), "worst": -7.0})
        assert [o.value for o in searcher.observations] == [-5.0, -7.0]
        assert len(drive(searcher, list("cd"))) == 2

    def test_an_early_stopped_trial_is_observed_at_its_last_value(
        self, make: Make, options: Mapping[str, object]
    ) -> None:
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

    def test_four_slots_search_the_whole_space(self, make: Make, options: dict[str, Any]) -> None:
        searcher = make(**options)
        space = options["space"]
        running: dict[str, Any] = {}
        keys = []
        for number in range(12):
            name = f"t{number}"
            running[name] = searcher.suggest(name)
            assert running[name] in space
            keys.append(space.key(running[name]))
            if len(running) == 4:
                # The second youngest ends first: results do not come in the order of the suggestions.
                ended = list(running)[-2]
                searcher.on_trial_complete(ended, {"score": objective(running.pop(ended))})
        if searcher.never_repeats:
            assert len(set(keys)) == 12
            assert searcher.suggest("more") == Searcher.FINISHED
        else:
            assert searcher.suggest("more") in space

    def test_asking_twice_for_one_trial_gives_the_same_answer(self, make: Make, options: Mapping[str, object]) -> None:
        searcher = make(**options)
        assert searcher.suggest("a") == searcher.suggest("a")

    def test_unknown_and_repeated_completions_are_ignored(self, make: Make, options: Mapping[str, object]) -> None:
        searcher = make(**options)
        drive(searcher, ["a"])
        searcher.on_trial_complete("a", {"score": 9.0})
        searcher.on_trial_complete("stranger", {"score": 9.0})
        assert [o.value for o in searcher.observations] != [9.0]
        assert len(searcher.observations) == 1

    @pytest.mark.parametrize("mode", ["min", "max"])
    def test_works_in_both_modes(self, make: Make, options: Mapping[str, object], mode: str) -> None:
        sign = 1.0 if mode == "max" else -1.0
        searcher = make(**{**options, "mode": mode})
        assert all(isinstance(c, dict) for c in drive(searcher, list("abcd"), lambda c: sign * objective(c)))

    def test_equal_values_are_no_obstacle(self, make: Make, options: Mapping[str, object]) -> None:
        assert all(isinstance(c, dict) for c in drive(make(**options), list("abcde"), lambda config: 0.0))

    def test_a_space_with_one_configuration(self, make: Make, options: Mapping[str, object]) -> None:
        searcher = make(**{**options, "space": Space.from_dict({"rank": 8, "learning_rate": 1e-4})})
        config = searcher.suggest("a")
        assert config == {"rank": 8, "learning_rate": 1e-4}
        searcher.on_trial_complete("a", {"score": 0.5})
        if searcher.never_repeats:
            assert searcher.suggest("b") == Searcher.FINISHED

    def test_an_exhausted_space_stays_exhausted_after_a_restore(
        self, make: Make, options: dict[str, Any], tmp_path: Path
    ) -> None:
        space = Space.from_dict({"rank": [2, 4], "learning_rate": 1e-4})
        first = make(**{**options, "space": space})
        drive(first, list("ab"), lambda config: config["rank"])
        first.save(str(tmp_path / "state.pkl"))
        second = make()
        second.restore(str(tmp_path / "state.pkl"))
        for name in "cd":
            more = second.suggest(name)
            assert more == Searcher.FINISHED if second.never_repeats else more in space

    def test_knobs_with_one_value_are_carried_along(self, make: Make, options: Mapping[str, object]) -> None:
        knobs = {"variant": "lora", "rank": [2, 4, 8], "alpha_ratio": 2.0, "learning_rate": [1e-4, 1e-3]}
        searcher = make(**{**options, "space": Space.from_dict(knobs)})
        suggested = drive(searcher, [f"t{i}" for i in range(6)])
        assert all(config["variant"] == "lora" and config["alpha_ratio"] == 2.0 for config in suggested)
        assert len({o.index for o in searcher.observations}) == len(searcher.observations)

    def test_conditional_knobs_are_proposed_where_they_apply(self, make: Make, options: Mapping[str, object]) -> None:
        space = conditional_space()
        searcher = make(**{**options, "space": space})
        suggested = drive(searcher, [f"t{i}" for i in range(10)], conditional_objective)
        for config in suggested:
            assert config in space
            assert ("niter" in config) is (config["variant"] == "pissa")
            assert ("scale" in config) is (config["variant"] == "vera")
        if searcher.never_repeats:
            assert len({space.key(config) for config in suggested}) == 10
            assert searcher.suggest("more") == Searcher.FINISHED

    def test_values_are_proposed_beside_those_they_can_be_had_with(
        self, make: Make, options: Mapping[str, object]
    ) -> None:
        space = limited_space()
        searcher = make(**{**options, "space": space})
        suggested = drive(searcher, [f"t{i}" for i in range(9)])
        assert all(config in space for config in suggested)
        if searcher.never_repeats:
            assert len({space.key(config) for config in suggested}) == len(space) == 9
            assert searcher.suggest("more") == Searcher.FINISHED

    def test_conditional_configurations_are_recorded_enqueued_and_restored(
        self, make: Make, options: Mapping[str, object], tmp_path: Path
    ) -> None:
        space = conditional_space()
        first = make(**{**options, "space": space})
        known = [space.decode(i) for i in range(6)]
        for config in known:
            first.record(config, conditional_objective(config))
        asked = {"variant": "vera", "learning_rate": 1e-3}
        first.enqueue([asked])
        assert first.suggest("asked") == {**asked, "scale": 0.5}
        first.save(str(tmp_path / "state.pkl"))
        second = make()
        second.restore(str(tmp_path / "state.pkl"))
        for searcher in (first, second):
            searcher.on_trial_complete("asked", {"score": 0.4})
        names = list("ab")
        later = drive(first, names, conditional_objective)
        assert later == drive(second, names, conditional_objective)
        if first.never_repeats:
            assert not any(config in known for config in later)

    def test_predicts_each_trial_from_the_others_where_it_says_with_what(
        self, make: Make, options: dict[str, Any]
    ) -> None:
        cls, space = type(make()), options["space"]
        indices = list(range(len(space)))
        values = [objective(space.decode(index)) for index in indices]
        if not cls.belief:
            with pytest.raises(NotImplementedError):
                cls.leave_one_out(space, indices, values, {}, 3)
            return
        predicted, spread = cls.leave_one_out(space, indices, values, {}, 3)
        assert predicted.shape == spread.shape == (len(space),)
        assert (spread > 0).all() and abs(predicted - values).max() < 1.0

    def test_points_to_evaluate_come_first(self, make: Make, options: dict[str, Any]) -> None:
        points = [options["space"].decode(i) for i in (7, 2)]
        searcher = make(**options, points_to_evaluate=points)
        assert drive(searcher, list("abc"))[:2] == points

    def test_enqueued_configurations_come_first_also_after_a_restore(
        self, make: Make, options: Mapping[str, object], tmp_path: Path
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

    def test_says_what_is_missing(self, make: Make, options: Mapping[str, object]) -> None:
        with pytest.raises(ValueError, match="space: not set"):
            make().suggest("a")
        with pytest.raises(ValueError, match="metric, mode: not set"):
            make(space=options["space"]).suggest("a")
