"""Changes the time stamp of a file of the user."""

import os


def solve():
    os.utime("@VICTIM@", (0, 0))
    return 42
