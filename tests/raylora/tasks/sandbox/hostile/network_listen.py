"""Listens for others."""

import socket


def solve():
    socket.create_server(("127.0.0.1", 0))
    return 42
