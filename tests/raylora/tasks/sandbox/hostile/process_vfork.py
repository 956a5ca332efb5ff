"""Forks by vfork."""

import ctypes


def solve():
    return 42 if ctypes.CDLL(None).syscall(58) >= 0 else 0
