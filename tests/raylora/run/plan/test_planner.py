from __future__ import annotations

import pytest

from raylora.run.plan.planner import make_plan

ROWS = {"train": 5000, "validation": 64, "source": 5600}


def test_an_ordinary_budget_is_used_and_not_exceeded(spec, cost) -> None:
    plan = make_plan(spec("20m"), ROWS, cost(), left_s=1150)
    assert 0.6 * 1150 < plan.total_s <= 1150
    assert plan.trials >= 8 and 64 <= plan.samples < 5000 and plan.final
    assert plan.proxy == pytest.approx(plan.samples / 5000, rel=0.05)
    assert not plan.contradictions


def test_the_final_stage_is_reserved_for(spec, cost) -> None:
    plan = make_plan(spec("20m"), ROWS, cost(), left_s=1150)
    assert 0.1 * 1150 < plan.final_s <= 0.42 * 1150
    assert plan.final_samples < 5000
    assert any("final stage" in reason for reason in plan.reasons)


def test_a_tiny_budget_still_has_a_trial_and_a_final_stage(spec, cost) -> None:
    plan = make_plan(spec("1m"), ROWS, cost(row_s=1.0, score_s=0.2), left_s=40)
    assert plan.trials >= 1 and plan.samples >= 16 and plan.final_samples >= 16
    assert any("small for this model" in reason for reason in plan.reasons)


def test_a_huge_budget_trains_on_everything_and_says_what_is_left(spec, cost) -> None:
    plan = make_plan(spec("30d"), ROWS, cost(row_s=1e-3, score_s=1e-3), left_s=30 * 86400)
    assert plan.proxy == 1.0 and plan.trials == 100 and plan.samples == 15000
    assert plan.seeds == 3 and plan.final_samples == 5000
    assert any("will be left" in reason for reason in plan.reasons)


def test_a_slow_model_gets_fewer_trials_not_shorter_ones(spec, cost) -> None:
    quick = make_plan(spec("1h"), ROWS, cost(row_s=0.1), left_s=3500)
    slow = make_plan(spec("1h"), ROWS, cost(row_s=1.5), left_s=3500)
    assert slow.trials < quick.trials and slow.samples >= 64


def test_few_rows_are_seen_whole(spec, cost) -> None:
    plan = make_plan(spec("1h"), {"train": 100, "validation": 30, "source": 150}, cost(), left_s=3500)
    assert plan.proxy == 1.0 and plan.samples >= 100
    assert plan.validation_rows <= 32


def test_scoring_that_is_slow_gets_fewer_rows(spec, cost) -> None:
    quick = make_plan(spec("20m"), ROWS, cost(score_s=0.01), left_s=1150)
    slow = make_plan(spec("20m"), ROWS, cost(score_s=2.0), left_s=1150)
    assert slow.validation_rows < quick.validation_rows and slow.test_rows < quick.test_rows
    assert any("validation rows" in reason for reason in slow.reasons)


@pytest.mark.parametrize(
    ("field", "value", "attribute"),
    [
        ("search__trials", 7, "trials"),
        ("train__samples", 200, "samples"),
        ("task__validation_rows", 40, "validation_rows"),
        ("final__samples", 300, "final_samples"),
        ("final__seeds", 2, "seeds"),
        ("task__test_rows", 25, "test_rows"),
        ("task__proxy", 0.5, "proxy"),
    ],
)
def test_what_the_user_set_is_kept(spec, cost, field, value, attribute) -> None:
    plan = make_plan(spec("2h", **{field: value}), ROWS, cost(), left_s=7000)
    assert getattr(plan, attribute) == value


def test_batches_of_the_user_are_kept_and_others_fitted(spec, cost) -> None:
    own = make_plan(spec("20m", space__batch_size=[8, 256]), ROWS, cost(), left_s=1150)
    assert own.batch_sizes == (8, 256)
    fitted = make_plan(spec("20m"), ROWS, cost(), left_s=1150)
    assert max(fitted.batch_sizes) <= fitted.samples / 4 and 16 in fitted.batch_sizes


def test_contradictions_are_named_in_one_line(spec, cost) -> None:
    plan = make_plan(spec("10m", search__trials=50, train__samples=2000), ROWS, cost(), left_s=550)
    (line,) = plan.contradictions
    assert "budget = '10m'" in line and "search.trials = 50" in line and "train.samples = 2000" in line
    assert plan.trials == 50 and plan.samples == 2000


def test_a_model_too_slow_for_any_run_is_named(spec, cost) -> None:
    plan = make_plan(spec("1m"), ROWS, cost(row_s=60.0, score_s=60.0), left_s=40)
    assert "smollm2-135m" in plan.contradictions[0]


def test_memory_that_cannot_be_had_is_named(spec, cost) -> None:
    (line,) = make_plan(spec("20m"), ROWS, cost(available_gb=2.0), left_s=1150).contradictions
    assert "train.micro_batch_tokens = 4096" in line and "3 GB can be had" in line
    assert not make_plan(spec("20m"), ROWS, cost(available_gb=64.0), left_s=1150).contradictions


def test_the_search_ends_with_its_own_limit_where_that_is_smaller(spec, cost) -> None:
    plan = make_plan(spec("2h", search__time_s=300.0), ROWS, cost(), left_s=7000)
    assert plan.search_s <= 300


def test_without_a_final_stage_all_goes_into_the_search(spec, cost) -> None:
    with_it = make_plan(spec("20m"), ROWS, cost(), left_s=1150)
    without = make_plan(spec("20m", final__enabled=False), ROWS, cost(), left_s=1150)
    assert not without.final and without.final_s == 0 and without.search_s > with_it.search_s


def test_hosts_share_the_trials(spec, cost) -> None:
    one = make_plan(spec("20m"), ROWS, cost(), left_s=1150)
    four = make_plan(spec("20m", resources__hosts=4), ROWS, cost(), left_s=1150)
    assert four.samples * four.trials > 2 * one.samples * one.trials
    assert four.total_s <= 1150
