"""Opens the memory of its parent."""

import os


def solve():
    os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR)
    return 42
