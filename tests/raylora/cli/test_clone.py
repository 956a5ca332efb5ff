from __future__ import annotations

from raylora.run.requests import waiting


def test_knobs_are_read_as_yaml(old_run, answer) -> None:
    run = old_run("interrupted")
    assert answer("clone", run, 1, "learning_rate=1e-4", "rank=4")["state"] == "waiting"
    (request,) = waiting(run)
    assert (request.config["learning_rate"], request.config["rank"]) == (1e-4, 4)
