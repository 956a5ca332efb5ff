"""Becomes another program."""

import os


def solve():
    os.execv("/bin/sh", ["sh", "-c", "sleep 600"])
