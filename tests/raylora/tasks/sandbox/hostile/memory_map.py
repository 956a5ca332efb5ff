"""Maps more than it may."""

import mmap


def solve():
    mmap.mmap(-1, 2**40)
    return 42
