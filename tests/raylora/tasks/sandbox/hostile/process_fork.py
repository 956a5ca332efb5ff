"""Forks."""

import os


def solve():
    if os.fork() == 0:
        while True:
            pass
    return 42
