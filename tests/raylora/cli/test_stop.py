from __future__ import annotations

from raylora.run.requests import waiting


def test_without_a_trial_the_search_is_ended(old_run, table) -> None:
    run = old_run("interrupted")
    assert f"raylora resume {run}" in table("stop", run)
    assert [request.what for request in waiting(run)] == ["end"]


def test_a_trial_that_there_is_not_is_one_line(old_run, mistake) -> None:
    assert mistake("stop", old_run("interrupted"), 9).startswith("TRIAL = '9': no such trial")
