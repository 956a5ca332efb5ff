"""Makes a device that is the disk."""

import os
import stat


def solve():
    os.mknod("disk", 0o600 | stat.S_IFBLK, os.makedev(254, 0))
    return 42
