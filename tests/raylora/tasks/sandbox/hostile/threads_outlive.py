"""Leaves a thread that writes files when the answer is given, wrongly."""

import threading
import time


def work():
    for index in range(10**6):
        with open(f"late-{index}", "w") as file:
            file.write("late")
        time.sleep(0.001)


def solve():
    threading.Thread(target=work).start()
    return 41
