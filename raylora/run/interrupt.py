"""Ctrl-C in a run: one asks it to stop and is obeyed within seconds, a second one at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from raylora.errors import Interrupted
from trainables.store import told

PATIENCE_S = 7.0
"""After Ctrl-C: how long hosts and Ray may take to end before the process leaves without them."""

STATUS = 130


@contextlib.contextmanager
def interruptible(folder: Path, told: str | None = None) -> Iterator[None]:
    """Ctrl-C within ends what is done with the run's folder, with the line that says how to go on.

    The first one raises `Interrupted`, whatever catches it in between: where the process has not left after PATIENCE_S,
    it leaves as it is. A second one does so at once. All that counts is on disk by then: the journal is written line by
    line, checkpoints in one step. Outside the main thread, which alone hears signals, nothing changes.

    Args:
        told: how to go on, where that is not as with a run.

    Raises:
        Interrupted: with that line.
    """
    told = f"interrupted; {told or _of_a_run(folder)}"
    if threading.current_thread() is not threading.main_thread():
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted(told) from None
        return
    over = threading.Event()

    def leave(*_: object) -> None:
        os.write(2, f"raylora: {told}\n".encode())
        # Ray's processes end with this one.
        os._exit(STATUS)

    def watch() -> None:
        if not over.wait(PATIENCE_S):
            leave()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, leave)
        os.write(2, b"\nraylora: stopping; Ctrl-C once more stops at once\n")
        threading.Thread(target=watch, daemon=True).start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(told) from None
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)
        sys.stderr.flush()


def _of_a_run(folder: Path) -> str:
    run = told(folder)
    return f"`raylora resume {run}` goes on, `raylora finish {run}` ends with what there is"
