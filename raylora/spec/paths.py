"""Where paths lie (on this machine, in a job's working directory, at a URI) and whether they can be written to.

Commands check the place of their files before the work, so that nothing is measured in vain.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path

from raylora.errors import UserError
from raylora.spec.text import short

URI = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def local_path(field: str, name: str) -> Path:
    """The path of a file or folder on this machine, which need not be there, with its `~` filled in.

    Args:
        field: of the spec, for messages.

    Raises:
        UserError: no file can have this name: too long, with a NUL, or in the home of somebody who is not known here.
    """
    try:
        path = Path(name).expanduser()
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
    else:
        return path
    raise UserError(f"{field} = {short(name)}: no path of this machine ({why})", field=field, value=name)


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


def writable_file(path: str | Path, option: str) -> Path:
    """The file that an option names, in a folder that is there and can be written to; what is in it stays.

    Raises:
        UserError: it is a folder, or cannot be written.
    """
    file, told = Path(path).expanduser(), f"{option} {path}"
    try:
        folder = stat.S_ISDIR(file.stat().st_mode)
    except FileNotFoundError:
        writable_folder(file.parent, told)
        return file
    except OSError as error:
        raise _refused(told, error.strerror or str(error), file) from None
    if folder or not os.access(file, os.W_OK):
        raise _refused(told, "Is a directory" if folder else "Permission denied", file)
    return file


def writable_folder(folder: Path, told: str) -> None:
    """Makes a folder. Raises UserError, which begins with `told`, where it cannot be made or written to."""
    problem = why_not_writable(folder)
    if problem:
        raise _refused(told, problem, folder)


def _refused(told: str, problem: str, place: Path) -> UserError:
    return UserError(
        f"{told}: {problem}; name a place that can be written to", field=told.partition(" ")[0], value=str(place)
    )


def why_not_writable(folder: Path) -> str | None:
    """Makes a folder and writes a file there, which does not stay. What the system says where it cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)
