"""Peak memory of a stretch of work, on CUDA and on Linux CPUs."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import torch

# Limit and use of the process's cgroup, versions 2 and 1.
_CGROUP = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak. On CPUs the kernel's high-water mark is reset where it allows that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_bytes(device: torch.device) -> int:
    """Memory that can still be allocated: free on CUDA, else what the kernel, and the process's cgroup, would give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    # macOS does not know the pages that are free: all of them, there.
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free = [os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = [int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024]
    for limit, used in _CGROUP:
        # A file without a number says that there is no limit.
        with contextlib.suppress(OSError, ValueError):
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, min(free))


def peak_memory_gb(device: torch.device) -> float:
    """Peak since the reset, in GB: allocated memory on CUDA, resident memory of the process on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9
    # Bytes on macOS, kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
