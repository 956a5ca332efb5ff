"""Lists the root folder."""

import os


def solve():
    return 42 if "home" in os.listdir("/") else 0
