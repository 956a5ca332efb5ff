"""Loops before anything is defined."""

while True:
    pass
