from __future__ import annotations

import time

import pytest

from raylora.run import experiment
from raylora.run.requests import add_trial, answers, book, change_trials, end_search, stop_trial, waiting
from raylora.run.state import run_status
from raylora.run.trials import trial_table
from raylora.spec import load
from trainables.journal import Journal


def test_what_was_asked_while_nobody_ran_the_search_is_taken_when_it_goes_on(old_run, ray_local, capsys) -> None:
    """The third trial is stopped, a configuration outside the space is next, and five trials are enough."""
    run = old_run("interrupted")
    stop_trial(run, 3)
    add_trial(run, {"rank": 3, "learning_rate": 4e-3})
    change_trials(run, 5)
    (run / "requests" / "9.json").write_text('{"what": "add", "key": "", "config": {}, "id": "9"}')
    summary = experiment.resume(run)
    table = trial_table(run)
    assert (summary["trials"], summary["asked"], len(table)) == (5, 5, 5)
    assert table["status"][2] == "stopped" and table["samples"][2] < table["samples"][0]
    assert table["accuracy"].notna().all()
    assert (table["rank"][3], table["learning_rate"][3]) == (3, 4e-3)
    told = answers(run)
    assert [answer["state"] for answer in told.values()] == ["taken", "taken", "taken", "refused"]
    assert load(run / "spec.yaml").search.trials == run_status(run)["trials"] == 5
    assert not (run / "requests").exists() and not (run / "stops").exists()
    assert "asked to stop a trial: trial 3 stops at its next step" in capsys.readouterr().err


def test_a_configuration_that_was_taken_and_had_not_begun_is_tried_by_who_goes_on(old_run, ray_local) -> None:
    run = old_run("interrupted")
    stop_trial(run, 3)
    add_trial(run, {"rank": 3})
    # As a process leaves it that dies right after its answer.
    request = next(one for one in waiting(run) if one.what == "add")
    book(run, request, taken=True, told="tried next")
    experiment.resume(run, quiet=True)
    table = trial_table(run)
    assert len(table) == 4 and table["rank"][3] == 3


def test_the_end_of_a_search_leaves_the_final_stage_with_what_there_is(old_run, ray_local) -> None:
    run = old_run("interrupted")
    end_search(run)
    summary = experiment.resume(run, quiet=True)
    table = trial_table(run)
    assert list(table["status"]) == ["finished", "finished", "stopped"]
    assert "test" in summary["best"]
    assert len(Journal(run).concluded()) == load(run / "spec.yaml").search.trials == 3


@pytest.mark.real
def test_a_trial_that_runs_is_stopped_from_another_process(write_spec, start_raylora, tmp_path) -> None:
    file = write_spec(search__trials=2, train__epochs=5000, final={"enabled": False})
    run, process = tmp_path / "runs" / "run", start_raylora("tune", file)
    deadline = time.monotonic() + 240
    try:
        for number in (1, 2):
            while not (run / "trials.jsonl").exists() or len(Journal(run).started()) < number:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
            assert stop_trial(run, number)["state"] in ("taken", "waiting")
        output, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert list(trial_table(run)["status"]) == ["stopped", "stopped"]
