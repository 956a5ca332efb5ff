"""Backtracks without end in C, where no Python runs."""

import re


def solve():
    re.match(r"(a+)+$", "a" * 60 + "b")
    return 42
