from __future__ import annotations

from dataclasses import replace

from searchers.surrogate.portfolio import Option, choose

DONE = Option(mean=1.0, sd=0.01, rest=0, step=0, free=False)
NEW = Option(mean=1.5, sd=0.5, rest=64, step=4, new=True)


def test_without_any_trial_the_new_one_begins_if_it_can_be_trained_whole() -> None:
    assert choose([NEW], left=64) == 0
    assert choose([NEW], left=63) is None


def test_a_promising_trial_goes_on_and_a_poor_one_stays_paused() -> None:
    promising = Option(mean=0.9, sd=0.1, rest=32, step=32)
    poor = Option(mean=2.0, sd=0.1, rest=56, step=8)
    assert choose([DONE, poor, promising, NEW], left=200) == 2
    assert choose([DONE, poor, NEW], left=200) == 2


def test_of_two_that_promise_as_much_the_nearer_one_goes_on() -> None:
    far, near = (Option(mean=0.95, sd=0.1, rest=rest, step=8) for rest in (56, 32))
    assert choose([DONE, far, near], left=200) == 2


def test_the_samples_that_the_most_promising_trial_needs_are_kept_for_it() -> None:
    favourite = Option(mean=0.8, sd=0.01, rest=32, step=32)
    unsure = replace(NEW, mean=1.0, sd=2.0)
    assert choose([favourite, unsure], left=96) == 1
    # What the new one takes for its first report would be missing.
    assert choose([favourite, unsure], left=64 - 32 + 3) == 0
    # Also where it runs.
    assert choose([replace(favourite, free=False), unsure], left=35) is None


def test_nothing_goes_on_that_could_not_come_to_its_end() -> None:
    assert choose([DONE, Option(mean=0.5, sd=0.1, rest=60, step=4)], left=59) is None


def test_nothing_is_chosen_twice() -> None:
    assert choose([DONE, Option(mean=0.5, sd=0.1, rest=32, step=32, free=False)], left=500) is None
