from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainables.saved import NotSaved, replacing, saved


def save(folder: Path, step: int) -> None:
    with replacing(folder) as fresh:
        (fresh / "position.json").write_text(str(step))


def step_of(folder: Path | None) -> int:
    assert folder is not None
    return int((folder / "position.json").read_text())


def test_the_last_state_is_found_alone(tmp_path) -> None:
    folder = tmp_path / "state"
    assert saved(folder) is None
    save(folder, 1)
    save(folder, 2)
    assert step_of(saved(folder)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_state_is_found_whichever_rename_a_kill_came_before(tmp_path, monkeypatch, killed_at: int) -> None:
    folder = tmp_path / "state"
    save(folder, 1)
    renames = []

    def die(source, target, real=os.replace) -> None:
        renames.append(source)
        if len(renames) == killed_at:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        save(folder, 2)
    monkeypatch.undo()
    assert step_of(saved(folder)) == 1
    save(folder, 3)
    assert saved(folder) == folder and step_of(folder) == 3


FULL = [OSError(28, "No space left on device"), RuntimeError("No space left on device\nat line 7")]


@pytest.mark.parametrize("error", FULL)
def test_what_cannot_be_written_leaves_the_state_before_and_no_rest(tmp_path, error) -> None:
    def fill(folder: Path) -> None:
        with replacing(folder) as fresh:
            (fresh / "adapter").write_text("a part")
            raise error

    folder = tmp_path / "state"
    save(folder, 1)
    with pytest.raises(NotSaved, match=r"not saved: .*No space left on device$"):
        fill(folder)
    assert step_of(saved(folder)) == 1 and [path.name for path in tmp_path.iterdir()] == ["state"]
