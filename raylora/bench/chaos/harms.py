"""What is done to a search, and whether this machine lets it be done."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from raylora.bench.chaos.nodes import has_redis

# In the environment of all processes of a search: the folder that it is in.
MARK = "RAYLORA_CHAOS"
# Kinds that are kill -9 of one process, and what Ray calls it.
PROCESSES = {
    "host": "ray::ModelHost",
    "surrogate": "ray::SurrogateActor",
    "policy": "ray::LeLoRAPolicyActor",
    "worker": "RayTrainWorker",
}
KINDS = {
    "driver": "kill -9 of the driver",
    "host": "kill -9 of a host",
    "surrogate": "kill -9 of the surrogate",
    "policy": "kill -9 of LeLoRA's policy",
    "worker": "kill -9 of one worker of two",
    "raylet": "kill -9 of a node's raylet; another node joins",
    "gcs": "kill -9 of the head's tables (GCS), kept in Redis; started again",
    "disk": "the disk full for some seconds",
    "read-only": "the run's folder read-only for some seconds",
    "clock": "the clock of all processes jumps by minutes or days",
}
# Bytes of the disk that is filled.
_DISK = 64 << 20
_JUMPS = (-86400, -600, 600, 86400)
_FAKETIME = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")
# ioctl(2) of a file's flags, and the one that forbids every change of it.
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


def unavailable(kind: str) -> str | None:
    """Why a kind cannot be done here; None where it can."""
    if kind == "gcs" and not has_redis():
        return "needs redis-server"
    if kind == "disk" and (os.geteuid() != 0 or shutil.which("mount") is None):
        return "needs root, to mount a small disk"
    if kind == "read-only" and not _can_forbid():
        return "needs a file system that can forbid root to write"
    if kind == "clock" and faketime() is None:
        return "needs libfaketime"
    return None


def processes(mark: str, title: str) -> list[int]:
    """Process ids of a search's processes whose command line holds `title`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if title.encode() not in (process / "cmdline").read_bytes():
                continue
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return sorted(found)


def kill_one(mark: str, kind: str, draw: random.Random) -> bool:
    """kill -9 of a process of that kind; whether there was one."""
    found = processes(mark, PROCESSES[kind])
    if not found:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(draw.choice(found), signal.SIGKILL)
    return True


# -- the disk ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of its own, in memory, mounted at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """No byte is free on the disk for the duration."""
    filler = disk / "filler"
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        yield
    finally:
        filler.unlink(missing_ok=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in the folder can be written, made or deleted for the duration, by root neither."""
    held: list[Path] = []
    try:
        # Folders first: what is made after the look around would stay writable.
        for place in [folder, *sorted(folder.rglob("*"), key=lambda path: not path.is_dir())]:
            with contextlib.suppress(OSError):
                _forbid(place, True)
                held.append(place)
        yield
    finally:
        for place in held:
            with contextlib.suppress(FileNotFoundError):
                _forbid(place, False)


def _can_forbid() -> bool:
    """Whether `read_only` holds, in the folder of temporary files."""
    with tempfile.TemporaryDirectory() as folder, read_only(Path(folder)):
        try:
            (Path(folder) / "written").touch()
        except OSError:
            return True
    return False


def _forbid(place: Path, changes: bool) -> None:
    if os.geteuid() != 0:
        place.chmod((place.stat().st_mode & ~0o222) if changes else (place.stat().st_mode | 0o200))
        return
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("l", 0)))
        flags = flags | _IMMUTABLE if changes else flags & ~_IMMUTABLE
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags))
    finally:
        os.close(descriptor)


# -- the clock ---------------------------------------------------------------------------------------------------------


def faketime() -> str | None:
    """The library that gives processes another clock."""
    return next((str(path) for pattern in _FAKETIME for path in Path("/").glob(pattern.lstrip("/"))), None)


# Python's own sleep waits until a moment of the monotonic clock, which libfaketime takes for one of the clock that it
# fakes: the call fails, or does not return. A wait for nothing at all is left alone.
_SLEEP = "import select\nimport time\n\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


class Clock:
    """A clock that can be made to jump, for processes with its environment; time intervals go on as they were.

    Args:
        file: which the processes read it from, once a second. A folder beside it has what they import as they start.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._seconds = file, 0
        file.write_text("+0")
        self._python = file.with_name(f"{file.name}-python")
        self._python.mkdir(exist_ok=True)
        (self._python / "sitecustomize.py").write_text(_SLEEP)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self._python), os.environ.get("PYTHONPATH")])),
            "LD_PRELOAD": str(faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Other processes' shared memory, which the library keeps one clock for all in, is none of ours.
            "FAKETIME_DISABLE_SHM": "1",
        }

    def jump(self, draw: random.Random) -> None:
        """By minutes or a day, forwards or backwards."""
        self._seconds += draw.choice(_JUMPS)
        self._file.write_text(f"{self._seconds:+d}")
