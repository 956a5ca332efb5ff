from __future__ import annotations

import pytest

from raylora.reports.page import datasets
from raylora.reports.page.facts import read_facts


@pytest.fixture(scope="module")
def facts(long_run):
    return read_facts(long_run)


@pytest.fixture(scope="module")
def rows(facts):
    return datasets.trial_rows([facts], datasets.find_knobs([facts]))


def test_knobs_are_those_that_vary(facts) -> None:
    knobs = {knob.name: knob for knob in datasets.find_knobs([facts])}
    assert set(knobs) == {"variant", "rank", "alpha_ratio", "batch_size", "learning_rate", "dropout"}
    assert knobs["learning_rate"].log and not knobs["variant"].numeric


def test_many_values_of_a_knob_are_gathered_into_bins(facts) -> None:
    import copy

    run = copy.deepcopy(facts)
    for trial in run.trials:
        trial.config = {**trial.config, "learning_rate": 1e-5 * 1.05**trial.number}
    (knob,) = [knob for knob in datasets.find_knobs([run]) if knob.name == "learning_rate"]
    assert len(knob.values) == 200 and len(knob.cells) == 12


def test_lost_trials_have_no_value(rows) -> None:
    assert all(row["value"] is None for row in rows if row["status"] in ("diverged", "failed"))
    assert sum(row["value"] is not None for row in rows) == 180


def test_nothing_beats_the_front_in_both(rows) -> None:
    scored = [row for row in rows if row["value"] is not None]
    front = [row for row in scored if row.get("front_seconds")]
    assert front
    for row in front:
        assert not any(o["value"] > row["value"] and o["seconds"] < row["seconds"] for o in scored)


@pytest.mark.parametrize(("sign", "best"), [(1.0, [1, 3]), (-1.0, [1, 2])])
def test_the_front_knows_the_better_end(sign, best) -> None:
    rows = [
        {"n": 1, "value": 1.0, "seconds": 1},
        {"n": 2, "value": 0.5, "seconds": 2},
        {"n": 3, "value": 2.0, "seconds": 3},
    ]
    assert [row["n"] for row in datasets.front(rows, "seconds", sign)] == best


def test_the_best_so_far_never_gets_worse(facts) -> None:
    best = [row["best"] for row in datasets.progress_rows([facts]) if row["best"] is not None]
    assert best == sorted(best) and len(datasets.progress_rows([facts])) == 200


def test_curves_are_marked_where_trials_paused_and_went_on(facts) -> None:
    curves, marks = datasets.curve_rows([facts])
    fifth = [mark["what"] for mark in marks if mark["trial"] == 5]
    assert fifth == ["paused", "resumed"]
    assert {"stopped", "diverged"} <= {mark["what"] for mark in marks}
    assert len([row for row in curves if row["trial"] == 1]) == 4


def test_a_resumed_trial_has_two_bars(facts) -> None:
    bars = [row for row in datasets.timeline_rows([facts]) if row["trial"] == 5]
    assert [bar["status"] for bar in bars] == ["interrupted", "finished"]
    assert bars[0]["end"] < bars[1]["begin"]


def test_the_distribution_goes_from_none_to_all(rows) -> None:
    shares = [row["share"] for row in datasets.distribution_rows(rows) if row["by"] == "run"]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0, 1)


def test_places_count_from_the_best(rows, facts) -> None:
    first = next(row for row in rows if row.get("place") == 1)
    assert first["value"] == max(row["value"] for row in rows if row["value"] is not None)
    assert first["share"] == 0


def test_trials_of_one_value_have_one_place(facts) -> None:
    import copy

    run = copy.deepcopy(facts)
    run.trials = [trial for trial in run.trials if trial.status == "finished"][:4]
    for number, (trial, value) in enumerate(zip(run.trials, (0.5, 0.25, 0.5, 0.125), strict=True), start=1):
        trial.number, trial.figures = number, {**trial.figures, run.metric: value}
    rows = datasets.trial_rows([run], [])
    assert [row["place"] for row in rows] == [1, 3, 1, 4]
    assert [row["share"] for row in rows] == pytest.approx([1 / 6, 2 / 3, 1 / 6, 1])


def test_seconds_add_up_over_the_reports(facts) -> None:
    trial = facts.trials[0]
    assert trial.seconds == pytest.approx(trial.total("train_s") + trial.total("eval_s") + 0.5)
    assert len(trial.points) == 4
