"""Writes through a link that it made."""

import os


def solve():
    os.symlink("@VICTIM@", "link")
    with open("link", "w") as file:
        file.write("changed")
    return 42
