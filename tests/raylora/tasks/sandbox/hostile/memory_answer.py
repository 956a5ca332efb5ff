"""Answers with more than can be sent."""

def solve():
    return "x" * 2**28
