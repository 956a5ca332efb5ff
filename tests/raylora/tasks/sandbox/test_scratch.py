from __future__ import annotations

import os
from pathlib import Path

from raylora.tasks.sandbox.scratch import holds_more_than, remove, scratch_folder


def test_a_scratch_folder_is_gone_afterwards() -> None:
    with scratch_folder() as path:
        Path(path, "file").write_text("x")
    assert not os.path.exists(path)


def test_folders_nested_deeper_than_a_path_are_removed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep-folder", dir_fd=here)
        inner = os.open("deep-folder", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    remove(str(root))
    assert not root.exists()


def test_folders_without_permissions_are_removed(tmp_path: Path) -> None:
    (tmp_path / "root" / "closed" / "inner").mkdir(parents=True)
    (tmp_path / "root" / "closed").chmod(0)
    remove(str(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(kept)
    remove(str(root))
    assert (kept / "file").read_text() == "x"
    assert not root.exists()


def test_names_that_are_no_text_are_removed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / os.fsdecode(b"\xff\n-rf")).mkdir(parents=True)
    remove(str(root))
    assert not root.exists()


def test_what_a_folder_holds_is_counted_below_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 100_000)
    assert holds_more_than(str(tmp_path), size=50_000, files=10)
    assert holds_more_than(str(tmp_path), size=10**6, files=2)
    assert not holds_more_than(str(tmp_path), size=10**6, files=3)
