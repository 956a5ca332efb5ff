"""Takes the permissions off a file of the user."""

import os


def solve():
    os.chmod("@VICTIM@", 0)
    return 42
