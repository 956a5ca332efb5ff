"""Becomes another user."""

import os


def solve():
    os.setresuid(1, 1, 1)
    return 42
