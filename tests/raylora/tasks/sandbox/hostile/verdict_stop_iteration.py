"""Raises what a harness might take for the end."""

def solve():
    raise StopIteration(42)
