"""Raises KeyboardInterrupt."""

def solve():
    raise KeyboardInterrupt
