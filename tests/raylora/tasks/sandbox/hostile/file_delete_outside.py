"""Deletes a file of the user."""

import os


def solve():
    os.unlink("@VICTIM@")
    return 42
