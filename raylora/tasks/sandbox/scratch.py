"""Scratch folders, and their removal whatever was made of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def scratch_folder() -> Iterator[str]:
    """An empty folder that only this user enters; it is gone afterwards."""
    path = tempfile.mkdtemp(prefix="raylora-sandbox-")
    try:
        yield path
    finally:
        remove(path)


def remove(root: str) -> None:
    """Remove `root` and all that it holds: folders without permissions, nested deeper than a path can name, links.

    A folder's children are moved up to the root before it goes, so no path is ever longer than two names; links
    are unlinked, never followed.
    """
    if not os.path.isdir(root):
        return
    os.chmod(root, 0o700)
    moved = 0
    while folders := _empty_of_files(root):
        for folder in folders:
            for inner in _empty_of_files(folder):
                moved += 1
                os.rename(inner, os.path.join(root, f"{os.path.basename(root)}.{moved}"))
            os.rmdir(folder)
    os.rmdir(root)


def _empty_of_files(folder: str) -> list[str]:
    """Unlink what is no folder; give those that are, made accessible."""
    folders = []
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)
            folders.append(entry.path)
        else:
            os.unlink(entry.path)
    return folders


def holds_more_than(root: str, *, size: int, files: int) -> bool:
    """Whether the folder holds more than `size` bytes on disk or more than `files` entries. Stops counting there."""
    total, count, stack = 0, 0, [root]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if count > files or total > size:
                        return True
        except OSError:
            continue
    return False
