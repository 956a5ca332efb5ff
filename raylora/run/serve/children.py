"""Servers of other packages: started, waited for, and ended with Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from raylora.errors import RunFailed
from raylora.run.serve.listening import Address

# Seconds between two looks at a server that starts, and those that it has to end by itself.
_LOOK_S, _PATIENCE_S = 0.25, 20


def serve_child(
    command: Sequence[str],
    address: Address,
    port: int,
    *,
    environment: Mapping[str, str] | None = None,
    given: str | None = None,
) -> None:
    """Run a server until it ends, Ctrl-C or SIGTERM; tells its address once `/health` answers.

    Its output is on standard error.

    Args:
        port: where it listens; `address` may leave that open.
        environment: variables that it has beside this process's own.
        given: what it reads on standard input.

    Raises:
        RunFailed: it ended by itself.
    """
    with _sigterm_as_ctrl_c():
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            text=True,
        )
        try:
            if given is not None and process.stdin is not None:
                with contextlib.suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(given)
            while process.poll() is None and not _healthy(address, port):
                time.sleep(_LOOK_S)
            if process.poll() is None:
                address.told(address.url(port))
            process.wait()
        except KeyboardInterrupt:
            return
        finally:
            _end(process)
    if process.returncode:
        raise RunFailed(
            f"--engine: the server ended with status {process.returncode}; the lines above say why",
            field="--engine",
            value=process.returncode,
        )


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Within, what ends this process by SIGTERM, as service managers do, ends it as Ctrl-C does: the server with it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # others cannot have signals
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _healthy(address: Address, port: int) -> bool:
    url = address.url(port).removesuffix("/v1") + "/health"
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with directly.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[str]) -> None:
    """The terminal has told it of Ctrl-C, as it has told us; who was told in another way passes it on."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(timeout=_PATIENCE_S)
    if process.poll() is None:
        process.kill()
        process.wait()
