from __future__ import annotations

import pytest

from raylora.cli import main


@pytest.mark.parametrize("status", [0, 1])
def test_status_of_the_job_is_the_commands(status, monkeypatch) -> None:
    given = {}

    def submit(spec, overrides, **options) -> int:
        given.update(options, spec=spec, overrides=overrides)
        return status

    monkeypatch.setattr("clusters.submit.submit", submit)
    assert main(["submit", "spec.yaml", "search.trials=2", "--address", "http://head:8265"]) == status
    assert given == {
        "spec": "spec.yaml", "overrides": ["search.trials=2"], "address": "http://head:8265", "working_dir": ".",
    }  # fmt: skip


def test_missing_spec_is_one_line(tmp_path, mistake) -> None:
    arguments = ["submit", tmp_path / "none.yaml", "--address", "http://localhost:1", "--working-dir", tmp_path]
    assert "no such file" in mistake(*arguments)
