"""Becomes root in a user namespace."""

import ctypes


def solve():
    failed = ctypes.CDLL(None).unshare(0x10000000 | 0x20000)
    return 0 if failed else 42
