"""The process that runs a guest of WebAssembly: it lends it a scratch folder, three streams and the clock.

It is passed to the interpreter as text, with the descriptor of the orders and the path of the compiled module as its
arguments, and imports nothing of raylora: starting is most of what a short program costs.
"""

from __future__ import annotations

import json
import os
import sys
import types

import wasmtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SCRATCH = "/scratch"
# The guest's stack, in bytes: three times the usual, as far as wasmtime lets it grow.
STACK_BYTES = 3 * 2**19


def engine() -> wasmtime.Engine:
    """What compiles the guest, and runs what was compiled so."""
    config = wasmtime.Config()
    config.max_wasm_stack = STACK_BYTES
    return wasmtime.Engine(config)


def host(orders_fd: int, module: str) -> None:
    """Run one role in the guest until it ends."""
    with open(orders_fd, "rb") as stream:
        orders = json.load(stream)
    confine: Any = types.ModuleType("confine")
    exec(orders.pop("confine"), confine.__dict__)
    confine.die_with_parent()
    memory = orders["policy"]["limits"].pop("RLIMIT_AS")[0]
    for name, (soft, hard) in orders["policy"]["limits"].items():
        confine.limit(name, soft, hard)
    scratch = orders["policy"]["scratch"]
    read_fd, write_fd, *verdict = orders["fds"]
    orders["fds"] = [0, 1, *[f"{_SCRATCH}/verdict" for _ in verdict]]
    with open(f"{scratch}/orders", "w") as file:
        json.dump(orders, file)
    wasi = wasmtime.WasiConfig()
    # What the guest prints must not come between the frames on its standard output.
    boot = f"import os, sys; sys.stdout = sys.stderr; os.chdir({_SCRATCH!r})\nexec({orders['boot']!r})"
    wasi.argv = ["python", "-S", "-s", "-B", "-c", boot, f"{_SCRATCH}/orders"]
    wasi.env = [("PYTHONHASHSEED", "0")]
    wasi.stdin_file = f"/proc/self/fd/{read_fd}"
    wasi.stdout_file = f"/proc/self/fd/{write_fd}"
    wasi.inherit_stderr()
    wasi.preopen_dir(scratch, _SCRATCH)
    for fd in (read_fd, write_fd):
        os.close(fd)
    here = engine()
    store = wasmtime.Store(here)
    store.set_limits(memory_size=memory)
    store.set_wasi(wasi)
    linker = wasmtime.Linker(here)
    linker.define_wasi()
    _run(store, linker.instantiate(store, wasmtime.Module.deserialize_file(here, module)))
    for fd in verdict:
        _pass_on(f"{scratch}/verdict", fd)


def _run(store: wasmtime.Store, instance: wasmtime.Instance) -> None:
    start: Any = instance.exports(store)["_start"]
    try:
        start(store)
    except wasmtime.ExitTrap:
        return


def _pass_on(path: str, fd: int) -> None:
    if os.path.exists(path):
        with open(path, "rb") as verdict, open(fd, "wb") as stream:
            stream.write(verdict.read(65536))


if __name__ == "__main__":
    host(int(sys.argv[1]), sys.argv[2])
