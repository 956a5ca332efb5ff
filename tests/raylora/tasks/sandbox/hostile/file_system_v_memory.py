"""Leaves a System V segment."""

import ctypes


def solve():
    segment = ctypes.CDLL(None).shmget(0x52415901, 4096, 0o1666)
    return 42 if segment >= 0 else 0
