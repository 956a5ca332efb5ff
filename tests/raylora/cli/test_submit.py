from __future__ import annotations

import json

import pytest

from clusters.submit import Submitted
from raylora.cli import main

COMMAND = ["submit", "spec.yaml", "search.trials=2", "--address", "http://head:8265"]


@pytest.fixture
def ends(monkeypatch):
    """`ends(state)`: the next job says a word and ends so; gives what it was submitted with."""

    def ends(state: str) -> dict:
        given = {}

        def submit(spec, overrides, *, write, **options) -> Submitted:
            write("hello\n")
            given.update(options, spec=spec, overrides=overrides)
            return Submitted("job-1", options["address"], state)

        monkeypatch.setattr("clusters.submit.submit", submit)
        return given

    return ends


@pytest.mark.parametrize(("state", "status"), [("succeeded", 0), ("failed", 1), ("stopped", 1), ("running", 1)])
def test_status_of_the_job_is_the_commands(state, status, ends, capsys) -> None:
    given = ends(state)
    assert main(COMMAND) == status
    assert given == {
        "spec": "spec.yaml", "overrides": ["search.trials=2"], "address": "http://head:8265", "working_dir": ".",
        "follow": True,
    }  # fmt: skip
    assert capsys.readouterr().out == "hello\n"


def test_a_program_is_told_the_job_and_nothing_else_and_need_not_wait(ends, capsys) -> None:
    given = ends("pending")
    assert main([*COMMAND, "--no-wait", "--json"]) == 0 and not given["follow"]
    told = capsys.readouterr()
    assert json.loads(told.out) == {"job": "job-1", "address": "http://head:8265", "state": "pending"}
    assert told.err == "hello\n"


def test_missing_spec_is_one_line(tmp_path, mistake) -> None:
    arguments = ["submit", tmp_path / "none.yaml", "--address", "http://localhost:1", "--working-dir", tmp_path]
    assert "no such file" in mistake(*arguments)
