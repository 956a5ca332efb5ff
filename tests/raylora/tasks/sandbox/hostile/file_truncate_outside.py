"""Empties a file of the user."""

import os


def solve():
    os.truncate("@VICTIM@", 0)
    return 42
