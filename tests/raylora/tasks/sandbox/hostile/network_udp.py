"""Sends a datagram."""

import socket


def solve():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"out", ("127.0.0.1", 53))
    return 42
