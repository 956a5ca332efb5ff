"""Stops its parent."""

import os
import signal


def solve():
    os.kill(os.getppid(), signal.SIGSTOP)
    return 42
