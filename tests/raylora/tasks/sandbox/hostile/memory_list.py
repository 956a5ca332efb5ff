"""Asks for memory without end."""

def solve():
    held = []
    while True:
        held.append(bytearray(2**24))
