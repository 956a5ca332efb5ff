"""Changes a setting of the kernel."""

def solve():
    with open("/proc/sys/kernel/core_pattern", "w") as file:
        file.write("|/bin/true")
    return 42
