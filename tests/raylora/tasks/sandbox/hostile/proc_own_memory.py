"""Opens its own memory, past every protection of pages."""

import os


def solve():
    os.open("/proc/self/mem", os.O_RDWR)
    return 42
