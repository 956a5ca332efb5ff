"""Leaves a folder that nobody may enter."""

import os


def solve():
    os.makedirs("a/b")
    os.mkdir("a/closed", 0)
    return 41
