"""Prints without end."""

def solve():
    while True:
        print("x" * 10000)
