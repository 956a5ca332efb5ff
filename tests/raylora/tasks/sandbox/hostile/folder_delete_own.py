"""Deletes the folder that it runs in."""

import os


def solve():
    os.rmdir(os.getcwd())
    return 42
