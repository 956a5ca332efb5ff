"""Spawns past fork."""

import os
import sys


def solve():
    os.posix_spawn(sys.executable or "/bin/true", ["true"], {})
    return 42
