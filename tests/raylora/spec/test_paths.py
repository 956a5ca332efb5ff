from __future__ import annotations

from pathlib import Path

import pytest

from raylora.spec.paths import absolute_storage


def test_relative_storage_of_a_job_is_outside_its_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    job = tmp_path / "runtime_resources" / "working_dir_files" / "pkg"
    job.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert absolute_storage("runs") == str(tmp_path / "runs")
    monkeypatch.chdir(job)
    assert absolute_storage("runs") == str(tmp_path / "home" / "raylora" / "runs")
    assert absolute_storage("s3://bucket/runs") == "s3://bucket/runs"
