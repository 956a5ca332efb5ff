from __future__ import annotations

import math

import pytest

from raylora.run.pool import NEW, Pool
from searchers.space import Space
from trainables.protocols import TrainSettings

SETTINGS = TrainSettings(samples=64, reports=5, doubling=True)


@pytest.fixture
def pool(quick_fits) -> Pool:
    space = Space.from_dict({"rank": [2, 4, 8, 16], "learning_rate": [1e-5, 1e-4, 1e-3, 1e-2]})
    return Pool(space, 64, SETTINGS.due, budget=4 * 64)


def train(pool: Pool, key: str, index: int, losses: list[float]) -> None:
    """A trial that has reported these losses, and is paused, or over where it is whole."""
    pool.begin(key, index)
    for samples, loss in zip((4, 8, 16, 32, 64), losses, strict=False):
        pool.report(key, samples, loss)
    pool.end(key, whole=True) if len(losses) == 5 else pool.pause(key)


def test_as_many_begin_as_there_are_whole_trials_before_any_goes_on(pool) -> None:
    for number in range(4):
        assert pool.choose(number) == NEW
        train(pool, f"t{number}", number, [1.0 + number, 0.5 + number])
    assert pool.choose(9) == "t0"


def test_the_first_trial_is_a_new_one(pool) -> None:
    assert pool.choose(5) == NEW and pool.choose(None) is None


def test_samples_under_way_are_spoken_for(pool) -> None:
    pool.begin("a", 0)
    assert pool.left == 4 * 64 - 4 and pool.running == 1
    pool.report("a", 4, 2.0)
    assert pool.left == 4 * 64 - 8
    pool.pause("a")
    assert pool.left == 4 * 64 - 4 and pool.running == 0


def test_a_trial_that_falls_fast_goes_on_before_one_that_does_not(pool) -> None:
    train(pool, "whole", 5, [3.0, 2.8, 2.5, 2.2, 2.0])
    train(pool, "slow", 0, [3.1, 3.1, 3.1])
    train(pool, "fast", 10, [2.6, 2.2, 1.8])
    assert pool.choose(None) == "fast"
    low, high = pool.forecast(["fast", "slow"]).loss
    assert low < 2.0 < high


def test_what_is_chosen_comes_to_an_end_within_the_budget(pool) -> None:
    """Whatever the losses: no more samples than there are, and a whole trial at the end."""
    pool.budget = 2 * 64
    for number in range(100):
        key = pool.choose(number % 16)
        if key is None:
            break
        key = f"t{number}" if key == NEW else key
        pool.begin(key, pool.members[key].index if key in pool.members else number % 16)
        member = pool.members[key]
        seen = SETTINGS.due(member.samples)
        pool.report(key, seen, 3.0 - 0.1 * (hash(key) % 7) * math.log2(seen))
        pool.end(key, whole=True) if seen == 64 else pool.pause(key)
    assert pool.left >= 0 and pool.choose(3) is None
    assert any(member.whole for member in pool.members.values())
    assert len(pool.members) <= pool.most


def test_lost_trials_are_learned_from_and_never_go_on(pool) -> None:
    train(pool, "good", 5, [3.0, 2.8, 2.5, 2.2, 2.0])
    pool.begin("bad", 3)
    pool.report("bad", 4, math.nan)
    pool.end("bad", lost=True)
    train(pool, "paused", 9, [2.9, 2.6])
    assert pool.choose(None) == "paused"
    assert pool.forecast(["bad"]).loss[0] > pool.forecast(["good"]).loss[0]


def test_no_more_configurations_begin_than_may(pool) -> None:
    for number in range(pool.most):
        train(pool, f"t{number}", number % 16, [3.0])
    assert pool.choose(3) != NEW


def test_a_trial_outside_the_space_costs_its_samples_and_is_left_alone(pool) -> None:
    pool.begin("outside", None)
    pool.report("outside", 4, 2.0)
    pool.pause("outside")
    assert pool.left == 4 * 64 - 4 and pool.choose(3) == NEW
