"""Kills its parent."""

import os
import signal


def solve():
    os.kill(os.getppid(), signal.SIGKILL)
    return 42
