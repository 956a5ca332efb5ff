"""Leaves a link to a folder, for the one who cleans up to follow."""

import os


def solve():
    os.symlink(os.path.dirname("@VICTIM@"), "folder")
    return 42 if os.listdir("folder") else 0
