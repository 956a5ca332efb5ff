"""Computes a number that fills the memory."""

def solve():
    return 10 ** (10**12)
