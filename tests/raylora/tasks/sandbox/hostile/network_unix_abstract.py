"""Talks over an abstract Unix socket."""

import socket


def solve():
    socket.socket(socket.AF_UNIX).bind("\0raylora-hostile")
    return 42
