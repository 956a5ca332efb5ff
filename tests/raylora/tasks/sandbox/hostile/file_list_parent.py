"""Lists the folder that holds its own."""

import os


def solve():
    return 42 if len(os.listdir("..")) > 1 else 0
