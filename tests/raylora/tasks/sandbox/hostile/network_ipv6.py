"""Opens an IPv6 socket."""

import socket


def solve():
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM).bind(("::1", 0))
    return 42
