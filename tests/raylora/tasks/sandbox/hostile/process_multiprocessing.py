"""Starts a worker."""

import multiprocessing


def work():
    while True:
        pass


def solve():
    multiprocessing.get_context("fork").Process(target=work).start()
    return 42
