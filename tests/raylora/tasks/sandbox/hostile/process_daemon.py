"""Detaches a process that is to outlive it."""

import os
import time


def solve():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
    return 42
