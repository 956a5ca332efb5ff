"""Loops in eight threads."""

import threading


def spin():
    while True:
        pass


def solve():
    threads = [threading.Thread(target=spin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
