from __future__ import annotations

import json

import pytest

from raylora.errors import UserError
from raylora.reports.page.facts import read_facts, span


def test_the_metric_of_an_unfinished_run_is_told_by_its_trials(make_run) -> None:
    run = read_facts(make_run("going", trials=12, finished=False))
    assert (run.metric, run.mode, run.summary) == ("accuracy", "max", None)


def test_statuses_are_those_of_the_table_of_trials(long_run) -> None:
    from raylora.run.trials import trial_table

    assert [trial.status for trial in read_facts(long_run).trials] == trial_table(long_run)["status"].tolist()


def test_a_torn_last_line_is_passed_over(make_run) -> None:
    run = make_run("torn", trials=8, finished=False)
    with (run / "trials.jsonl").open("a") as file:
        file.write('{"event": "start", "key')
    assert len(read_facts(run).trials) == 8


def test_a_plan_is_read_where_there_is_one(make_run) -> None:
    run = make_run("planned", trials=4)
    (run / "plan.json").write_text(json.dumps({"seconds": 12}))
    assert read_facts(run).plan == {"seconds": 12}


def test_other_folders_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"holds no spec\.yaml"):
        read_facts(tmp_path)


@pytest.mark.parametrize(("seconds", "told"), [(5, "5 s"), (65, "1 min 5 s"), (3700, "1 h 1 min"), (90000, "1 d 1 h")])
def test_durations_have_two_units(seconds, told) -> None:
    assert span(seconds) == told
