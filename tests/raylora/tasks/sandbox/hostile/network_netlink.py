"""Asks the kernel for its interfaces."""

import socket


def solve():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    return 42
