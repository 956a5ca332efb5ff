"""Looks for keys in its environment."""

import os


def solve():
    return 42 if any("SECRET" in name for name in os.environ) else 0
