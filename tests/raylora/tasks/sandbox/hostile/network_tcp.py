"""Connects to a listener on this machine."""

import socket


def solve():
    socket.create_connection(("127.0.0.1", int("@PORT@")), timeout=2).sendall(b"out")
    return 42
