"""Leaves through SystemExit."""

import sys


def solve():
    sys.exit(0)
