"""Reads a file of the user."""

def solve():
    with open("@VICTIM@") as file:
        return 42 if file.read() else 0
