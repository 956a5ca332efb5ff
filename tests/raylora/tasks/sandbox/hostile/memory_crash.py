"""Reads at address 0."""

import ctypes


def solve():
    return ctypes.string_at(0)
