"""Starts a program."""

import subprocess


def solve():
    subprocess.Popen(["sleep", "600"])
    return 42
