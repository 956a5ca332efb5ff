"""Takes the permissions off a file of the user."""

import os


def solve():
    os.chmod("@VICTIM@", 0)
    return 42 if os.stat("@VICTIM@").st_mode & 0o777 == 0 else 0
