"""Kills its process group."""

import os
import signal


def solve():
    os.kill(0, signal.SIGTERM)
    return 42
