"""Recurses until the stack of C ends."""

import sys


class Deep:
    def __repr__(self):
        return repr(self)


def solve():
    sys.setrecursionlimit(10**9)
    return len(repr(Deep()))
