from __future__ import annotations

from dataclasses import replace

import pytest

from raylora.run.plan.packs import fitting_pack, gain, memory_gb, with_pack
from raylora.run.plan.planner import as_told, make_plan

ROWS = {"train": 5000, "validation": 64, "source": 5600}
AUTO = {"resources__pack": "auto", "space__batch_size": [2], "space__rank": [8], "search__trials": 40}


@pytest.fixture
def asked(spec):
    def make(**changes):
        return spec("20m", **(AUTO | {"space__learning_rate": [1e-5 * (k + 1) for k in range(60)]} | changes))

    return make


@pytest.fixture
def costly(cost):
    """A step of which much is the same whatever the batch."""
    return cost(fixed_s=0.2, row_s=0.1)


def test_a_pack_takes_the_fixed_part_of_a_step_once(asked, cost) -> None:
    alone = cost(fixed_s=0.2, row_s=0.1)
    four = with_pack(asked(), alone, 4)
    assert alone.step_seconds("lora", 8, 2) == pytest.approx(0.4)
    assert four.step_seconds("lora", 8, 2) == pytest.approx(0.25)
    assert four.step_seconds("full", 8, 2) == alone.step_seconds("full", 8, 2)
    assert gain(asked(), alone, 4) == pytest.approx(1.6)


def test_batches_that_fill_a_pass_gain_nothing(asked, costly) -> None:
    large = asked(space__batch_size=[64])
    assert gain(large, costly, 8) == pytest.approx(1.0)
    assert fitting_pack(large, costly) == 1


def test_the_fewest_that_are_nearly_as_quick_share_passes(asked, costly) -> None:
    pack = fitting_pack(asked(), costly)
    assert 1 < pack <= 10
    assert gain(asked(), costly, pack) >= 0.95 * gain(asked(), costly, 10) > gain(asked(), costly, pack - 1)


def test_a_searcher_that_learns_sees_most_results(asked, costly) -> None:
    few = {"search__trials": 8}
    assert fitting_pack(asked(**few), costly) == 2 < fitting_pack(asked(**few, search__searcher="random"), costly)


def test_memory_bounds_a_pack(asked, costly) -> None:
    spec, short = asked(space__rank=[256]), costly
    each = memory_gb(spec, with_pack(spec, short, 2)) - memory_gb(spec, short)
    needed = memory_gb(spec, with_pack(spec, short, 3)) + 0.5 * each
    assert fitting_pack(spec, replace(short, available_gb=needed / 0.9 - short.resident_gb)) == 3


def test_a_plan_fills_the_pack_in_and_says_what_it_gains(asked, costly) -> None:
    spec = asked()
    plan = make_plan(spec, ROWS, costly, left_s=1150)
    assert plan.pack == fitting_pack(spec, costly) == plan.apply(spec).resources.pack
    assert any(f"{plan.pack} trials at a time on a host" in line and "times as many" in line for line in plan.lines())


def test_a_pack_of_the_users_is_kept_and_shortens_the_search(asked, costly) -> None:
    both = [as_told(asked(resources__pack=pack), ROWS, costly) for pack in (1, 8)]
    one, eight = both
    assert (one.pack, eight.pack) == (1, 8) and one.gain == 1.0 < eight.gain
    assert eight.search_s < one.search_s and eight.memory_gb > one.memory_gb and eight.final_s == one.final_s


def test_a_plan_says_why_trials_do_not_share_passes(asked, costly) -> None:
    def reason(**changes) -> str:
        plan = as_told(asked(**changes), ROWS, costly)
        assert plan.pack == 1
        return plan.lines()[-1]

    assert "1 times as fast" in reason(space__batch_size=[64])
    assert "too few trials" in reason(search__trials=2)
    assert not as_told(asked(resources__pack=1), ROWS, costly).reasons
    small = replace(costly, available_gb=0.1)
    assert "no room for two" in make_plan(asked(space__rank=[256]), ROWS, small, left_s=1150).lines()[3]
