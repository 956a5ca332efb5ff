"""Memory that has run out: told from other errors, and from other deaths of a process. Imports no torch."""

from __future__ import annotations

import contextlib
from pathlib import Path

# What PyTorch, its allocators and its libraries say where they have no error class for it.
_SAID = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "defaultcpuallocator",
    "alloc_failed",
    "bad_alloc",
    "could not create a memory object",
)
_KILLS = (("/proc/vmstat", "oom_kill"), ("/sys/fs/cgroup/memory.events", "oom_kill"))


class NoRoom(MemoryError):
    """Not even one row at a time fits into the memory that there is."""


class Crowded(MemoryError):
    """Memory has run out at one worker of a group, which can repeat the step only with all the others.

    Args:
        micro_batch_tokens: that the group may go on with.
    """

    def __init__(self, micro_batch_tokens: int) -> None:
        super().__init__(micro_batch_tokens)
        self.micro_batch_tokens = micro_batch_tokens

    def __str__(self) -> str:
        return f"memory ran out; micro-batches of {self.micro_batch_tokens} tokens may fit"


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory has run out: of a GPU, of the machine, of a cgroup or of an address space."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in said for words in _SAID)


def ended_for_memory(error: BaseException) -> bool:
    """Whether Ray says that it ended a process because its node was running out of memory."""
    return "running low on memory" in str(error)


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory, on this machine or in this cgroup; 0 if unknown."""
    counts = [0]
    for file, name in _KILLS:
        with contextlib.suppress(OSError, ValueError):
            lines = (line.split() for line in Path(file).read_text().splitlines())
            counts += [int(line[1]) for line in lines if len(line) == 2 and line[0] == name]
    return max(counts)
