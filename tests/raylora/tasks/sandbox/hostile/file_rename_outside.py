"""Moves a file of the user into its folder."""

import os


def solve():
    os.rename("@VICTIM@", "mine")
    return 42
