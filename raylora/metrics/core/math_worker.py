"""Compares mathematical expressions in a process of its own, where a comparison can be given up.

Deciding whether two expressions are equal may take for ever. math-verify's own limits use signals, which work on the
main thread alone; scoring runs on any. So comparisons are made here, on a main thread: `MathWorker` is the side of the
scorer, and `python -m raylora.metrics.core.math_worker` the other. A line of JSON `[answer, given]` goes in, a line
`1`, `0` or `?` (given up) comes back.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TextIO

_MEMORY = 4 * 2**30
_START_SECONDS = 300.0
_CLOCK_SECONDS = 60.0


class MathWorker:
    """Asks a worker process, which is started when it is first needed and again after it was lost.

    Args:
        seconds: processor time for one comparison; a busy machine does not make an answer wrong. The kernel ends the
            process where a signal does not stop it, and this side does where the clock has gone on for far longer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def equal(self, answer: str, given: str) -> bool:
        """Whether two LaTeX expressions mean the same; False where that was not found out in time."""
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([answer, given]).encode() + b"\n")
                process.stdin.flush()
                reply = _line(process, _CLOCK_SECONDS + 10 * self.seconds)
            except OSError:
                reply = b""
            if not reply:
                self._stop()
            return reply == b"1"

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self.seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            weakref.finalize(self, _end, process)
            self._process = process
            if _line(process, _START_SECONDS) != b"ready":
                self._stop()
                raise RuntimeError("the process that compares mathematical answers did not start")
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            _end(self._process)
        self._process = None

    def __getstate__(self) -> dict[str, object]:
        return {"seconds": self.seconds}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__init__(state["seconds"])  # type: ignore[misc]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The next line, stripped; empty where the process ended or none came in time. A reply is written at once."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline().strip() if ready else b""


class _GaveUpError(BaseException):
    """Time is up; no `except Exception` of a library in between holds it."""


def _give_up(number: int, frame: object) -> None:
    raise _GaveUpError


def _serve(seconds: float, replies: TextIO) -> None:
    import logging
    import resource

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGPROF, _give_up)
    # LaTeX alone: the other reader of math-verify evaluates what it reads.
    reader = [LatexExtractionConfig(boxed_match_priority=-1)]

    def equal(answer: str, given: str) -> bool:
        read = [
            parse(f"${text}$", reader, fallback_mode="no_fallback", parsing_timeout=None) for text in (answer, given)
        ]
        return all(read) and bool(verify(read[0], read[1], timeout_seconds=None))

    # The first comparison builds what all of them use: that is no part of anyone's time.
    equal("x+1", "1+x")
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        reply = "?"
        with contextlib.suppress(_GaveUpError, Exception):
            signal.setitimer(signal.ITIMER_PROF, seconds)
            # Python heeds a signal only between its own steps, and one step can multiply without an end.
            last = math.ceil(time.process_time() + 2 * seconds) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (last, resource.RLIM_INFINITY))
            reply = str(int(equal(*json.loads(line))))
        with contextlib.suppress(_GaveUpError):
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        print(reply, file=replies, flush=True)


if __name__ == "__main__":
    # What libraries print must not be taken for replies.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(float(sys.argv[1]), answers)
