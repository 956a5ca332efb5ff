"""Loops."""

def solve():
    while True:
        pass
