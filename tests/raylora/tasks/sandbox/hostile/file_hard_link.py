"""Links a file of the user into its folder."""

import os


def solve():
    os.link("@VICTIM@", "link")
    return 42
