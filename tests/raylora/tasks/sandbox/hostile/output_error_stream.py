"""Fills the error stream."""

import os


def solve():
    while True:
        os.write(2, b"x" * 10000)
