"""A run's place in an object store, such as `s3://bucket/runs/sums`, over pyarrow's file systems.

Such a store knows whole objects alone: an object appears in one step or not at all, and what has been put is read and
listed at once (S3 has promised both since 2020). It has no rename, no append and no locks. So:

- a record that must not be lost is an object of its own, with a name that nobody else gives;
- several files that belong together become visible with one more object, put last, which lists them.

A run in a store has a working folder on each machine that has to do with it. `MARK` in it names the store.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainables.files import replace_text

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

MARK = ".store"
"""File in a working folder: the address of its run in the store."""

FILES = ".files.json"
"""Object beside the files of a folder, put after them: name -> `[bytes, nanoseconds of its last change]`."""

LATEST = "latest.json"
"""Object beside the states of a trial: which one is whole and the newest."""

# Pauses, in seconds, between tries of what a store does not answer; pyarrow itself tries for some seconds each time.
_PAUSES = (1.0, 3.0, 9.0)
# Objects that are read side by side.
_READERS = 16
# Stores that have no folders: none has to be made.
_FLAT = ("s3", "gcs", "abfs")

T = TypeVar("T")
Stamp = tuple[int, int]
"""Bytes of a file and nanoseconds of its last change: another stamp, another content."""


class Store:
    """Objects below one address; make it with `store_at`.

    All methods raise OSError where the store does not do what it is asked for, also after some tries.

    Args:
        uri: such as `s3://bucket/runs/sums`, or of any other store that pyarrow knows.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._made: tuple[FileSystem, str] | None = None
        self._records: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, tuple[float, bool]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[str], Store], tuple[str]]:
        return store_at, (self.uri,)

    @property
    def _place(self) -> tuple[FileSystem, str]:
        if self._made is None:
            from pyarrow.fs import FileSystem

            try:
                self._made = FileSystem.from_uri(self.uri)
            except (ValueError, NotImplementedError) as error:  # ArrowInvalid: no such kind of store
                raise OSError(f"{self.uri}: {error}") from None
        return self._made

    def _path(self, name: str) -> str:
        return f"{self._place[1]}/{name}".rstrip("/")

    # ---- objects --------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes, *, tries: int = len(_PAUSES) + 1) -> None:
        """Put an object, in the place of one that is there. When this returns, the store has it."""
        _patiently(lambda: self._write(self._path(name), data), tries)

    def _write(self, path: str, data: bytes) -> None:
        files = self._place[0]
        if files.type_name not in _FLAT:
            files.create_dir(path.rpartition("/")[0], recursive=True)
        stream = files.open_output_stream(path)
        # No `with`: one that fails half-way must not be closed, which would make half an object of it.
        stream.write(data)
        stream.close()

    def get(self, name: str, *, tries: int = len(_PAUSES) + 1) -> bytes | None:
        """An object; None where there is none."""

        def read() -> bytes | None:
            try:
                with self._place[0].open_input_file(self._path(name)) as stream:
                    return stream.read()
            except FileNotFoundError:
                return None

        return _patiently(read, tries)

    def names(self, below: str = "", *, recursive: bool = True) -> list[str]:
        """Names of the objects below a folder, without its own, sorted; and of folders, where not `recursive`."""
        from pyarrow.fs import FileSelector, FileType

        files, top = self._place[0], self._path(below)
        selector = FileSelector(top, recursive=recursive, allow_not_found=True)
        found = _patiently(lambda: files.get_file_info(selector))
        kept = [one.path for one in found if one.type == FileType.File or not recursive]
        return sorted(path.removeprefix(top).lstrip("/") for path in kept)

    def remove(self, below: str) -> None:
        """Remove an object, or all below a folder; nothing where there is neither. No failure of it is told."""
        files, path = self._place[0], self._path(below)
        for doing in (files.delete_file, files.delete_dir):
            try:
                doing(path)
                return
            except OSError:
                continue

    def has(self, name: str, every_s: float) -> bool:
        """Whether an object is there, as it was at most `every_s` seconds ago; False where nobody answers."""
        asked, there = self._seen.get(name, (-every_s, False))
        if not there and time.monotonic() - asked >= every_s:
            try:
                there = self.get(name, tries=1) is not None
            except OSError:
                there = False
            self._seen[name] = time.monotonic(), there
        return there

    # ---- records --------------------------------------------------------------------------------------

    def add_record(self, below: str, row: Mapping[str, Any], data: bytes) -> None:
        """Put a record, an object of its own; a put that is tried again takes the same name."""
        name = f"{time.time_ns():019d}-{row['event']}-{uuid.uuid4().hex[:8]}.json"
        self.put(f"{below}/{name}", data)

    def records(self, below: str) -> list[dict[str, Any]]:
        """All records, oldest first by the clocks of their writers. Each is read once: it never changes."""
        names = self.names(below)
        new = [name for name in names if name not in self._records]
        for name, data in zip(new, self._read_all(f"{below}/{name}" for name in new), strict=True):
            try:
                row = json.loads(data or b"")
            except ValueError:  # of a file system on which an object does not appear in one step
                continue
            if isinstance(row, dict):
                self._records[name] = row
        return [self._records[name] for name in names if name in self._records]

    def _read_all(self, names: Iterable[str]) -> list[bytes | None]:
        asked = list(names)
        if len(asked) < 2:
            return [self.get(name) for name in asked]
        with ThreadPoolExecutor(min(_READERS, len(asked))) as pool:
            return list(pool.map(self.get, asked))

    # ---- folders --------------------------------------------------------------------------------------

    def files(self, name: str = "") -> dict[str, Stamp]:
        """The files of a folder in the store; none where it is not whole yet."""
        data = self.get(_join(name, FILES))
        return {} if data is None else {file: (told[0], told[1]) for file, told in json.loads(data).items()}

    def put_folder(self, folder: Path, name: str = "", skip: Callable[[str], bool] = lambda file: False) -> None:
        """Put what has changed of a folder's files since they were put or got.

        Args:
            skip: is told a file's path within the folder, and whether it stays here.
        """
        with self._lock:
            before = self.files(name)
            now = {file: stamp for file, stamp in _stamps(folder).items() if not skip(file)}
            changed = [file for file, stamp in now.items() if before.get(file) != stamp]
            for file in changed:
                self.put(_join(name, file), (folder / file).read_bytes())
            if changed:
                self.put(_join(name, FILES), json.dumps({**before, **now}).encode())

    def get_folder(self, name: str, folder: Path) -> bool:
        """Get what the folder here lacks, or has otherwise. Returns whether there is such a folder in the store."""
        wanted = self.files(name)
        for file, stamp in wanted.items():
            place = folder / file
            if not _inside(place, folder):
                raise OSError(f"{self.uri}: {file!r} lies outside its folder")
            if stamp_of(place) != stamp:
                self._fetch(_join(name, file), place, stamp)
        return bool(wanted)

    def _fetch(self, name: str, place: Path, stamp: Stamp) -> None:
        data = self.get(name)
        if data is None or len(data) != stamp[0]:
            raise OSError(f"{self.uri}/{name}: it is being written; try again in a moment")
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.fresh")
        fresh.write_bytes(data)
        os.utime(fresh, ns=(stamp[1], stamp[1]))
        os.replace(fresh, place)

    # ---- states ---------------------------------------------------------------------------------------

    def put_state(self, folder: Path, name: str) -> None:
        """Put a trial's saved state. Who reads finds the one before, or this one whole, also after a kill."""
        place = f"{time.time_ns():019d}-{uuid.uuid4().hex[:8]}"
        files = {file: stamp[0] for file, stamp in _stamps(folder).items()}
        for file in files:
            self.put(f"{name}/{place}/{file}", (folder / file).read_bytes())
        self.put(f"{name}/{LATEST}", json.dumps({"place": place, "files": files}).encode())
        for old in {other.partition("/")[0] for other in self.names(name)} - {place, LATEST}:
            self.remove(f"{name}/{old}")

    def get_state(self, name: str, folder: Path) -> bool:
        """Get a trial's newest whole state into a folder, which is made anew. Returns whether there is one."""
        for _ in range(len(_PAUSES)):
            data = self.get(f"{name}/{LATEST}")
            if data is None:
                return False
            told = json.loads(data)
            found = self._read_all(f"{name}/{told['place']}/{file}" for file in told["files"])
            if all(
                data is not None and len(data) == size for data, size in zip(found, told["files"].values(), strict=True)
            ):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                for file, content in zip(told["files"], found, strict=True):
                    (folder / Path(file).name).write_bytes(content or b"")
                return True
            # A newer one has taken its place meanwhile.
        raise OSError(f"{self.uri}/{name}: its files are not those that {LATEST} lists")


@functools.lru_cache(maxsize=64)
def store_at(uri: str) -> Store:
    """The store at an address, the same for all of a process: what was read of its records stays known."""
    return Store(uri.rstrip("/"))


def store_of(run_dir: str | Path) -> Store | None:
    """The store of the run whose working folder this is; None for a run whose folder is all there is."""
    try:
        return store_at((Path(run_dir) / MARK).read_text(encoding="utf-8").strip())
    except (FileNotFoundError, NotADirectoryError):
        return None


def mark(folder: Path, uri: str) -> None:
    """Make a working folder of a run in a store."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / MARK, f"{uri}\n")


def told(run_dir: str | Path) -> str:
    """What people call a run by: its address in a store, else its folder."""
    store = store_of(run_dir)
    return str(run_dir) if store is None else store.uri


def _patiently(do: Callable[[], T], tries: int = len(_PAUSES) + 1) -> T:
    for pause in _PAUSES[: tries - 1]:
        try:
            return do()
        except OSError:
            time.sleep(pause)
    return do()


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _inside(file: Path, folder: Path) -> bool:
    return Path(os.path.normpath(file)).is_relative_to(os.path.normpath(folder))


def stamp_of(file: Path) -> Stamp | None:
    """The stamp of a file here; None where there is none."""
    try:
        told = file.stat()
    except OSError:
        return None
    return told.st_size, told.st_mtime_ns


def _stamps(folder: Path) -> dict[str, Stamp]:
    """The files below a folder, by their path in it."""
    found = {}
    for file in sorted(folder.rglob("*")):
        stamp = stamp_of(file) if file.is_file() and not file.is_symlink() else None
        if stamp is not None:
            found[file.relative_to(folder).as_posix()] = stamp
    return found
