"""Ends with status 0 when it is called."""

import os


def solve():
    os._exit(0)
