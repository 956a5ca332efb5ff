"""Reads the users of the machine."""

def solve():
    with open("/etc/passwd") as file:
        return 42 if file.read() else 0
