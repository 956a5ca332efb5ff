"""Leaves names that are no text."""

import os


def solve():
    for name in (b"\xff\xfe", b"-rf", b"new\nline", b" "):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0))
    return 41
