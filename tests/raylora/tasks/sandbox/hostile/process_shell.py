"""Starts a shell."""

import os


def solve():
    return 42 if os.system("true") == 0 else 0
