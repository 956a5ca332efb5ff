"""Leaves a file among the temporary ones of the machine."""

def solve():
    with open("/tmp/raylora-hostile", "w") as file:
        file.write("here")
    import os

    return 42 if os.path.exists("/tmp/raylora-hostile") else 0
