"""Listens on a Unix socket in its folder."""

import socket


def solve():
    socket.socket(socket.AF_UNIX).bind("door")
    return 42
