from __future__ import annotations

from raylora.run.requests import waiting


def test_a_configuration_or_a_number_of_trials_is_asked_for(old_run, answer) -> None:
    run = old_run("interrupted")
    assert answer("add", run, "rank=16")["state"] == answer("add", run, "--trials", 6)["state"] == "waiting"
    assert [(request.what, request.trials) for request in waiting(run)] == [("add", None), ("trials", 6)]


def test_both_or_neither_is_one_line(old_run, mistake) -> None:
    run = old_run("interrupted")
    for arguments in ((), ("rank=16", "--trials", 6)):
        assert mistake("add", run, *arguments) == "knob=value, --trials: give one of them"
