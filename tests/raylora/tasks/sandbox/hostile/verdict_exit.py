"""Ends with status 0 before any assertion."""

import os

os._exit(0)
