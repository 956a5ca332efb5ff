"""Opens files without end."""

def solve():
    held = [open(f"file-{index}", "w") for index in range(10**5)]
    return len(held) and 42
