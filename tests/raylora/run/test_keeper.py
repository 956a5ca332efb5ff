from __future__ import annotations

import json
import time

import pytest

from raylora.run.keeper import Keeper
from raylora.run.plan.cost import CostModel
from raylora.run.plan.memory import Shape
from raylora.run.plan.plan import margin
from raylora.run.plan.planner import make_plan
from raylora.spec import from_dict
from trainables.journal import Journal

ROWS = {"train": 5000, "validation": 64, "source": 5600}
SHAPE = Shape(parameters=135_000_000, layers=30, hidden=576, vocabulary=49_152, adapter_per_rank=305_280)
BEST = {"variant": "lora", "rank": 8, "alpha_ratio": 2, "learning_rate": 1e-3, "batch_size": 8, "dropout": 0.0}


@pytest.fixture
def keeper(tmp_path):
    """A keeper of a 20 minutes' run with a plan, `used` seconds of it gone."""

    def make(used: float = 60.0, budget: str = "20m", row_s: float = 0.1, **changes) -> Keeper:
        spec = from_dict({"model": "smollm2-135m", "budget": budget, "task": {"path": "rows.jsonl"}, **changes})
        made = Keeper.begin(tmp_path, spec)
        assert made is not None
        cost = CostModel(SHAPE, 100.0, 0.0, row_s / 100, 0.0, 0.0, evaluation_row_s=0.05, attach_s=0.1)
        made.used_before = 60.0
        made.settle(make_plan(spec, ROWS, cost, left_s=made.left_s), cost)
        made.used_before = used
        return made

    return make


def test_without_a_budget_there_is_none(tmp_path) -> None:
    assert Keeper.begin(tmp_path, from_dict({"model": "smollm2-135m", "task": {"path": "rows.jsonl"}})) is None
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_keeps_its_plan_and_its_used_time(keeper) -> None:
    before = keeper(used=300.0)
    before.write()
    after = Keeper.again(before.folder, before.asked)
    assert after is not None and after.plan == before.plan and after.calibrated == before.calibrated
    assert after.used_s == pytest.approx(300, abs=2)


def test_what_the_user_set_is_remembered_where_the_file_has_every_default(keeper, tmp_path) -> None:
    before = keeper(search={"trials": 9})
    (tmp_path / "plan.json").write_text(json.dumps(json.loads((tmp_path / "plan.json").read_text()) | {"plan": None}))
    after = Keeper.again(tmp_path, from_dict(before.asked.to_dict()))
    assert after is not None and "search.trials" in after.chosen and "search.scheduler" not in after.chosen


def test_the_search_leaves_time_for_the_final_stage(keeper) -> None:
    kept = keeper()
    assert kept.search_left_s() == pytest.approx(kept.left_s - kept.plan.final_s - margin(1200), rel=0.02)
    assert time.time() < kept.deadline() < time.time() + kept.search_left_s()


def test_no_trial_starts_that_would_end_too_late(keeper) -> None:
    assert not keeper(used=60.0).enough(5)
    late = keeper(used=1200 - 100)
    assert late.enough(5)


def test_the_first_trial_starts_however_late_it_is(keeper) -> None:
    late = keeper(used=1300.0)
    assert not late.enough(0)
    assert late.hard_stop_s() > late.plan.trial_s


def test_trials_that_take_longer_change_the_plan(keeper) -> None:
    kept = keeper()
    before, journal = kept.plan.trial_s, Journal(kept.folder)
    for n in range(3):
        config = {**BEST, "dropout": n / 10}
        journal.append("start", str(n), config=config)
        steps = kept.plan.samples // 8
        journal.finish(str(n), config, {"samples": kept.plan.samples, "step": steps, "step_time_s": 4.0, "eval_s": 5.0})
    kept.ended(journal)
    assert kept.plan.trial_s > 2 * before
    told = json.loads((kept.folder / "plan.json").read_text())
    assert set(told["trials"]) == {"0", "1", "2"} and told["first"]["trial_s"] == pytest.approx(before)
    assert told["trials"]["0"]["train_s"] == pytest.approx(4.0 * steps)


def test_failed_trials_say_nothing_of_costs(keeper) -> None:
    kept = keeper()
    Journal(kept.folder).fail("k", BEST, "too large")
    kept.ended(Journal(kept.folder))
    assert kept.taken == {}


def test_the_final_stage_is_as_planned_where_there_is_time(keeper) -> None:
    share = keeper(used=700.0).final_share(BEST, 5000, 64, 500)
    assert share is not None and share.samples >= keeper().plan.final_samples and share.notes == ()


def test_the_final_stage_shrinks_with_the_time_that_is_left(keeper) -> None:
    kept = keeper(used=1200 - 48 - 60)
    share = kept.final_share(BEST, 5000, 64, 500)
    assert share is not None and 16 <= share.samples < kept.plan.final_samples
    assert any("samples instead of" in note for note in share.notes)


def test_test_rows_and_seeds_shrink_too(keeper) -> None:
    kept = keeper(used=60.0, final={"seeds": 3, "samples": 400})
    kept.used_before = 1200 - 48 - 25
    share = kept.final_share(BEST, 5000, 64, 500)
    assert share is not None and share.seeds == 1 and share.test_rows == 16


def test_recipes_are_cut_short_rather_than_left_out(keeper) -> None:
    share = keeper(used=1200 - 48 - 6, row_s=1.0).final_share(BEST, 5000, 16, 500)
    assert share is not None and share.samples == 16 and share.test_rows == 4
    assert any("as much of 16 samples as there is time for" in note for note in share.notes)


def test_nothing_left_is_no_final_stage(keeper) -> None:
    assert keeper(used=1199.0).final_share(BEST, 5000, 64, 500) is None


def test_a_final_stage_that_is_asked_for_after_all_is_whole(keeper) -> None:
    late = keeper(used=5000.0)
    late.bounded = False
    share = late.final_share(BEST, 5000, 64, 500)
    assert share is not None and share.samples >= late.plan.final_samples and share.notes == ()
    assert late.shown_left_s is None and late.job_deadline(2, 64, 100) == float("inf")


def test_a_share_is_kept_for_a_resumed_run(keeper) -> None:
    kept = keeper(used=900.0)
    share = kept.final_share(BEST, 5000, 64, 500)
    again = Keeper.again(kept.folder, kept.asked)
    assert again is not None and again.final_share(BEST, 5000, 64, 500) == share


def test_jobs_share_what_is_left(keeper) -> None:
    kept = keeper(used=800.0)
    two, one = kept.job_deadline(2, 64, 100) - time.time(), kept.job_deadline(1, 64, 100) - time.time()
    assert 0 < two < one < kept.left_s
