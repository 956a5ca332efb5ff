"""Where paths lie (on this machine, in a job's working directory, at a URI) and whether they can be written to.

Commands check the place of their files before the work, so that nothing is measured in vain.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from raylora.errors import UserError

URI = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def absolute_storage(path: str) -> str:
    """A storage path as URI or absolute path.

    Ray throws the working directory of a submitted job away, and each node has its own copy of it. There a
    relative path is taken below ~/raylora instead, so that nothing is written into it.
    """
    if URI.match(path):
        return path
    folder = Path(path).expanduser()
    if folder.is_absolute():
        return str(folder)
    here = Path.cwd()
    in_job = "working_dir_files" in here.parts and "runtime_resources" in here.parts
    return str((Path.home() / "raylora" if in_job else here) / folder)


def output_stem(to: str | Path, option: str = "--to") -> Path:
    """The stem of the files to write, in a folder that is there and can be written to.

    Raises:
        UserError: there can be no such folder, or nothing can be written in it.
    """
    stem = Path(to).expanduser()
    writable_folder(stem.parent, f"{option} {to}")
    return stem


def writable_folder(folder: Path, told: str) -> None:
    """Makes a folder. Raises UserError, which begins with `told`, where it cannot be made or written to."""
    problem = why_not_writable(folder)
    if problem:
        raise UserError(
            f"{told}: {problem}; name a place that can be written to", field=told.partition(" ")[0], value=str(folder)
        )


def why_not_writable(folder: Path) -> str | None:
    """Makes a folder and writes a file there, which does not stay. What the system says where it cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)
