"""Sends from a datagram pair to another address."""

import socket


def solve():
    mine, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    mine.sendto(b"out", "/dev/log")
    return 42
