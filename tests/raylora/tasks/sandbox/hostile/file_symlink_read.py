"""Reads through a link that it made."""

import os


def solve():
    os.symlink("@VICTIM@", "link")
    with open("link") as file:
        return 42 if file.read() else 0
