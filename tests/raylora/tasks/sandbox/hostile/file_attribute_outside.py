"""Sets an extended attribute on a file of the user."""

import os


def solve():
    os.setxattr("@VICTIM@", "user.hostile", b"1")
    return 42
