"""Appends to a file of the user."""

import os


def solve():
    os.write(os.open("@VICTIM@", os.O_WRONLY | os.O_APPEND), b"changed")
    return 42
