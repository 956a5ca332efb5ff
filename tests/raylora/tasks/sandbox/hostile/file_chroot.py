"""Changes its root."""

import os


def solve():
    os.chroot(".")
    return 42
