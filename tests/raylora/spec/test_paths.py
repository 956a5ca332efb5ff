from __future__ import annotations

from pathlib import Path

import pytest

from raylora.errors import UserError
from raylora.spec.paths import absolute_storage, local_path, writable_file


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


def test_a_file_to_write_has_its_folder_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    assert not writable_file(tmp_path / "a" / "b" / "new.csv", "--to").exists()
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "old.csv").write_text("mine")
    assert writable_file(tmp_path / "old.csv", "--to").read_text() == "mine"


@pytest.mark.parametrize(
    ("place", "told"), [("folder", "Is a directory"), ("file/x.csv", "Not a directory"), ("x" * 300, "too long")]
)
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, place: str, told: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"^--to .*{told}; name a place") as refused:
        writable_file(tmp_path / place, "--to")
    assert refused.value.field == "--to"


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "~nobody-of-this-name/x", "\ud800"])
def test_name_that_no_file_can_have_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r"^task.path = .*: no path of this machine \(") as caught:
        local_path("task.path", name)
    assert len(str(caught.value).splitlines()) == 1


def test_path_need_not_be_there_and_its_home_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("task.path", "~/rows.jsonl") == Path("/home/me/rows.jsonl")
    assert local_path("task.path", "/etc/hosts/none") == Path("/etc/hosts/none")
