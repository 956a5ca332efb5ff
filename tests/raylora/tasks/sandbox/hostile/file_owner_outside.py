"""Gives a file of the user away."""

import os


def solve():
    os.chown("@VICTIM@", 12345, 12345)
    return 42
