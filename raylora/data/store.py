"""Blocks of rows on disk, kept from run to run: `$RAYLORA_HOME/data` (or `~/.cache/raylora/data`), an entry a folder.

An entry is named by the hash of all that decides what is in it and is written once: in a folder of its own that takes
its place when it is complete. `entry.json` lists its files with size and time of modification; a folder where that does
not hold was torn or meddled with and is made anew. Entries in use are locked (shared) by the process that uses them;
when all together exceed the limit, those go that were not used for longest and are not in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raylora.errors import UserError
from trainables.home import home

ENTRY = "entry.json"
LIMIT_GB = 20.0
_IN_USE = "in-use"
_held: dict[str, int] = {}  # file descriptors by folder; the locks last as long as the process


def cache_root() -> Path:
    """Where entries are: `$RAYLORA_HOME/data`, else `~/.cache/raylora/data`."""
    return home() / "data"


def cache_limit() -> int:
    """In bytes: `$RAYLORA_DATA_CACHE_GB`, else 20 GB.

    Raises:
        UserError: the variable is no number of at least 0.
    """
    text = os.environ.get("RAYLORA_DATA_CACHE_GB", "")
    try:
        limit = float(text) if text else LIMIT_GB
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise UserError.at("RAYLORA_DATA_CACHE_GB", f"{text!r}; allowed: a number of gigabytes, 0 or more", value=text)
    return int(limit * 1e9)


def digest(*parts: str | bytes) -> str:
    """Name of an entry for what decides its content; the order counts."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        found.update(len(content).to_bytes(8, "little"))
        found.update(content)
    return found.hexdigest()


@dataclass(frozen=True)
class Entry:
    """A complete entry.

    Attributes:
        about: what its maker says of it; `label` and `rows` are shown in lists, `blocks` are its Arrow files in order.
        size: of all its files, in bytes.
    """

    folder: Path
    about: dict[str, Any]
    size: int

    @property
    def blocks(self) -> list[str]:
        return [str(self.folder / name) for name in self.about["blocks"]]

    def array(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", allow_pickle=False)

    @property
    def used(self) -> float:
        """When it was last used, in seconds since the epoch."""
        return (self.folder / ENTRY).stat().st_mtime


def obtain(
    key: str, make: Callable[[Path], dict[str, Any]], say: Callable[[str], None] = lambda text: None
) -> tuple[Entry, bool]:
    """The entry called `key`, and whether it was there; locked against deletion while this process lives.

    Args:
        make: fills an empty folder and returns what `Entry.about` will hold. Called by one process at a time; another
            that wants the same waits for it.

    Raises:
        UserError: the cache cannot be written.
    """
    from filelock import FileLock, Timeout

    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f".{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("data: another run prepares the same rows; waiting for it")
            lock.acquire()
        try:
            entry, found = _read(root / key), True
            if entry is None:
                entry, found = _make(root, key, make), False
            _hold(entry.folder)
            os.utime(entry.folder / ENTRY)
        finally:
            lock.release()
    except OSError as error:
        raise UserError.at(
            "RAYLORA_HOME",
            f"cannot keep rows in {root}: {error.strerror or error}; "
            "set RAYLORA_HOME to a writable folder with room for the tokenised rows",
            value=str(root),
        ) from error
    if not found:
        shrink(cache_limit())
    return entry, found


def _make(root: Path, key: str, make: Callable[[Path], dict[str, Any]]) -> Entry:
    for torn in root.glob(f".{key}.work-*"):
        shutil.rmtree(torn, ignore_errors=True)
    shutil.rmtree(root / key, ignore_errors=True)
    work = root / f".{key}.work-{os.getpid()}"
    work.mkdir()
    try:
        about = make(work)
        listed = {*about["blocks"], *(path.name for path in work.glob("*.npy"))}
        for path in list(work.iterdir()):
            if path.name not in listed:
                path.unlink()  # of a task that was run twice
        (work / _IN_USE).touch()
        files = {name: _stamp(work / name) for name in sorted(listed)}
        (work / ENTRY).write_text(json.dumps({"files": files, "about": about}))
        work.rename(root / key)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    made = _read(root / key)
    if made is None:
        raise OSError(f"{root / key} changed while it was written")
    return made


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _read(folder: Path) -> Entry | None:
    """The entry in a folder; None where there is none or it is not what was written."""
    try:
        kept = json.loads((folder / ENTRY).read_text())
        files, about = kept["files"], kept["about"]
        if any(_stamp(folder / name) != stamp for name, stamp in files.items()) or not set(about["blocks"]) <= {*files}:
            return None
        return Entry(folder, about, sum(size for size, _ in files.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _hold(folder: Path) -> None:
    if str(folder) in _held:
        if os.path.samestat(os.fstat(_held[str(folder)]), (folder / _IN_USE).stat()):
            return
        os.close(_held.pop(str(folder)))
    handle = os.open(folder / _IN_USE, os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_SH)
    _held[str(folder)] = handle


def release() -> None:
    """Give up all locks of this process, where what it obtained is no longer read."""
    for handle in _held.values():
        os.close(handle)
    _held.clear()


@contextlib.contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Whether no process uses or makes this entry; none begins to until the end of the block."""
    from filelock import FileLock, Timeout

    name = folder.name.removeprefix(".").partition(".")[0]
    try:
        with FileLock(folder.parent / f".{name}.lock", timeout=0):
            free = True
            with contextlib.suppress(FileNotFoundError):
                handle = os.open(folder / _IN_USE, os.O_RDWR)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    free = False
                finally:
                    os.close(handle)
            yield free
    except Timeout:
        yield False


# --- the cache as a whole ---


def entries() -> list[Entry]:
    """All complete entries, the last used first."""
    root = cache_root()
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."] if root.is_dir() else []
    return sorted(filter(None, map(_read, folders)), key=lambda entry: -entry.used)


def shrink(limit: int) -> int:
    """Delete entries, those not used for longest first, until all together hold at most `limit` bytes.

    Those in use stay. Returns how many bytes went.
    """
    kept = entries()
    total, gone = sum(entry.size for entry in kept), 0
    for entry in reversed(kept):
        if total - gone <= limit:
            break
        gone += entry.size if _delete(entry.folder) else 0
    return gone


def clean() -> tuple[int, int]:
    """Delete everything that is not in use, unfinished and torn entries too: entries that went, and that stayed."""
    root = cache_root()
    gone = stayed = 0
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.is_dir():
            went = _delete(path)
            gone, stayed = gone + went, stayed + (not went)
    return gone, stayed


def _delete(folder: Path) -> bool:
    with _unused(folder) as free:
        if not free:
            return False
        # Out of the way in one step: who looks for it meanwhile finds nothing rather than a part.
        aside = folder.with_name(f".{folder.name.removeprefix('.')}.work-{time.time_ns()}")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        return True
