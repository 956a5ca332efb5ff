"""Leaves a block of shared memory."""

from multiprocessing import shared_memory


def solve():
    shared_memory.SharedMemory("raylora-hostile", create=True, size=16)
    return 42
