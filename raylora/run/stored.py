"""Runs in an object store: their working folders here, what of these is kept in the store, and who runs them.

The store holds of a run, below `STORAGE/NAME`:

- `journal/`: an object for each line of the journal, put before the writer goes on (`trainables.journal`);
- `checkpoints/`: the states of trials that are not over, whole ones alone (`trainables.store`);
- the files of its folder, put as they change: after each trial, and when the run ends, however it does;
- `final/`, `adapter/`: what the final stage wrote, put before its line is in the journal;
- `holder.json`: who runs it now.

The working folder has the same files, so that whatever reads a run's folder reads this one. The searcher's state stays
here: it is a pickle, and who else writes to a store is not known. Another machine rebuilds it from the journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from raylora.errors import UserError
from raylora.spec import Spec
from raylora.spec.paths import URI
from trainables.home import stored_folder
from trainables.journal import Journal
from trainables.store import FILES, MARK, Store, mark, stamp_of, store_at, store_of, told

HOLDER = "holder.json"
ADAPTER, FINAL = "adapter", "final"
# Where Tune and Ray Train keep their own records.
TUNE, RAY_TRAIN = "tune", "ray_train"
# How often who runs a run says so, and after how long without it nobody does, in seconds.
_SIGN_S, _SILENT_S = 20.0, 90.0
# What of a working folder is not among its files in the store: it is kept apart there, or is of this machine alone.
_APART = ("adapter", "attempts", "checkpoints", "final", "live", "ray_train", "requests", "stops", "strategies")
_OWN = (MARK, "searcher.pkl", "searcher.json")


class Holder(TypedDict):
    """Who runs a run: machine, process, and when it last said so, in seconds since the epoch."""

    machine: str
    pid: int
    time: float


def is_stored(place: str | Path) -> bool:
    """Whether a place is an address in a store rather than a path."""
    return bool(URI.match(str(place)))


def new_stored(uri: str, name: str) -> Path:
    """The empty working folder of a new run in a store.

    Raises:
        UserError: there is a run at that address, or the store cannot be had.
    """
    store = store_at(uri)
    with had(uri):
        taken = store.names(recursive=False)
    if taken:
        raise UserError.at("name", f"{uri} is in use; choose another name, or `raylora resume {uri}`", value=name)
    folder = stored_folder(uri)
    shutil.rmtree(folder, ignore_errors=True)
    mark(folder, uri)
    return folder


def begin_stored(folder: Path) -> None:
    """Put the first files of a new run into its store; nothing without one. UserError: it cannot be had."""
    store = store_of(folder)
    if store is None:
        return
    with had(store.uri):
        Journal(folder).begin()
        publish(folder)


def working_copy(place: str | Path, run_mark: str) -> Path:
    """The folder of a run as it is now: its own, or a working folder with what the store has but for its adapters.

    Args:
        run_mark: name of the file that each run has.

    Raises:
        UserError: there is no run at that address, or the store cannot be had.
    """
    uri = str(place) if is_stored(place) else None
    if uri is None:
        folder = Path(place).expanduser().absolute()
        store = store_of(folder)
        if store is None:
            return folder
        uri = store.uri
    else:
        uri = uri.rstrip("/")
        store, folder = store_at(uri), stored_folder(uri)
    if is_locked(folder / run_mark):
        return folder  # it is being written here: nobody has anything newer
    with had(uri, "RUN_DIR"):
        files = store.files()
        if run_mark not in files:
            raise UserError(
                f"RUN_DIR: {uri} holds no run; give the address of one that `raylora tune` made",
                field="RUN_DIR",
                value=uri,
            )
        if stamp_of(folder / run_mark) != files[run_mark]:
            # Of an earlier run at this address.
            shutil.rmtree(folder, ignore_errors=True)
        mark(folder, uri)
        _forget(folder, set(files))
        store.get_folder("", folder)
        for name in store.names("strategies"):
            file = folder / "strategies" / name
            if not file.exists():
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(store.get(f"strategies/{name}") or b"")
    return folder


def is_locked(file: Path) -> bool:
    """Whether a process of this machine holds a file's lock; not where there is no file, or there are no locks."""
    try:
        with file.open() as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _forget(folder: Path, files: set[str]) -> None:
    """Remove files that the store has not, of a process that was ended before it put them: they will be made again."""
    for file in list(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in files and not _stays(name):
            file.unlink(missing_ok=True)


def _stays(name: str) -> bool:
    first = name.partition("/")[0]
    return first in _APART or name in _OWN or name.endswith(".fresh") or name == FILES


def publish(folder: Path) -> None:
    """Put what has changed of a run's files into its store; nothing without one. OSError: the store cannot be had."""
    store = store_of(folder)
    if store is None:
        return
    store.put_folder(folder, skip=_stays)


def publish_adapter(folder: Path) -> None:
    """As `publish`, of the run's adapter."""
    store = store_of(folder)
    if store is not None and (folder / ADAPTER).is_dir():
        store.put_folder(folder / ADAPTER, ADAPTER)


def fetch_results(folder: Path) -> None:
    """Get the adapter of a run and what its final stage wrote; nothing without a store.

    Raises:
        UserError: the store cannot be had.
    """
    store = store_of(folder)
    if store is None:
        return
    with had(store.uri):
        store.get_folder(ADAPTER, folder / ADAPTER)
        for label in sorted({name.partition("/")[0] for name in store.names(FINAL)}):
            store.get_folder(f"{FINAL}/{label}", folder / FINAL / label)


def clear_stored(folder: Path) -> None:
    """Remove from the store what only a search that goes on needs."""
    store = store_of(folder)
    if store is not None:
        for name in ("checkpoints", "stops"):
            store.remove(name)


def stored_runs(storage: str, run_mark: str) -> list[str]:
    """Addresses of the runs right below one. UserError: the store cannot be had."""
    uri = storage.rstrip("/")
    store = store_at(uri)
    with had(uri):
        return [
            f"{uri}/{name}" for name in store.names(recursive=False) if run_mark in store_at(f"{uri}/{name}").files()
        ]


@contextlib.contextmanager
def had(uri: str, field: str = "storage_path") -> Iterator[None]:
    """What a store says where it cannot be had, in one line."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise refused(uri, error, field) from None


def refused(uri: str, error: OSError, field: str = "storage_path") -> UserError:
    """The line for a store that does not do what it is asked for."""
    why = " ".join(str(error).split())
    return UserError(
        f"{field} = {uri!r}: {why[:240]}; allowed: a bucket that is there, with AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY, AWS_REGION and, for a server of your own, AWS_ENDPOINT_URL",
        field=field,
        value=uri,
    )


def folder_of(spec: Spec, command: str) -> Path:
    """The folder that a spec's storage is, for commands that need one. UserError: it is an address in a store."""
    if is_stored(spec.storage()):
        raise UserError.at(
            "storage_path",
            f"{spec.storage()}: `raylora {command}` keeps what it measures in a folder; allowed: a path",
            value=spec.storage(),
        )
    return Path(spec.storage())


def check_store(uri: str) -> None:
    """Puts an object into a store, reads it and removes it.

    Raises:
        UserError: it cannot be had, or is of a kind that nobody knows here; credentials or options in the address.
    """
    rest = uri.partition("://")[2]
    if "@" in rest.partition("/")[0] or "?" in rest:
        raise UserError(
            "storage_path: credentials and options do not belong into an address; allowed: s3://BUCKET/PATH, and the "
            "rest in the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)",
            field="storage_path",
        )
    store, probe = Store(uri.rstrip("/")), f".probe-{os.getpid()}"
    with had(uri):
        store.put(probe, b"raylora", tries=1)
        if store.get(probe, tries=1) != b"raylora":
            raise OSError("what is put is not what is read")
        store.remove(probe)


# ---- who runs it -------------------------------------------------------------------------------------------


def machine() -> str:
    """Name of this machine, another one after each start."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        boot = ""
    return f"{socket.gethostname()}-{boot}"


def holder(folder: Path) -> Holder | None:
    """Who else runs a run in a store; None where nobody does, or it has no store."""
    store = store_of(folder)
    data = None if store is None else store.get(HOLDER)
    if data is None:
        return None
    found: Holder = json.loads(data)
    if found["machine"] == machine():
        alive = found["pid"] != os.getpid() and Path(f"/proc/{found['pid']}").exists()
    else:
        alive = time.time() - found["time"] < _SILENT_S
    return found if alive else None


@contextlib.contextmanager
def held_in_store(folder: Path) -> Iterator[None]:
    """Says in a run's store, for the duration, that this process runs it; nothing without a store.

    A store has no locks: two machines that begin within the same second both find nobody. Their trials would not be
    lost, but some be trained twice.

    Raises:
        UserError: another process runs it.
    """
    store = store_of(folder)
    if store is None:
        yield
        return
    with had(store.uri):
        other = holder(folder)
    if other is not None:
        ago = time.time() - other["time"]
        raise UserError(
            f"RUN_DIR: process {other['pid']} on {other['machine']} runs {told(folder)}, as it said {ago:.0f} s ago; "
            f"wait until it ends, or {_SILENT_S:.0f} s after it was killed",
            field="RUN_DIR",
            value=store.uri,
        )
    over = threading.Event()

    def say() -> None:
        here: Holder = {"machine": machine(), "pid": os.getpid(), "time": time.time()}
        store.put(HOLDER, json.dumps(here).encode())

    def keep_saying() -> None:
        while not over.wait(_SIGN_S):
            with contextlib.suppress(OSError):
                say()

    with had(store.uri):
        say()
    thread = threading.Thread(target=keep_saying, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_SIGN_S)
        with contextlib.suppress(OSError):
            publish(folder)
        store.remove(HOLDER)
