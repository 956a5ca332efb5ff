"""Sleeps longer than anyone waits."""

import time


def solve():
    time.sleep(10**6)
    return 42
