"""Has a pipe signal its parent."""

import fcntl
import os


def solve():
    read, _ = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETOWN, os.getppid())
    return 42
