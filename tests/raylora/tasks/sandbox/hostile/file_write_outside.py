"""Overwrites a file of the user."""

def solve():
    with open("@VICTIM@", "w") as file:
        file.write("changed")
    return 42
