"""Drivers of searches: `raylora tune` and `raylora resume` in processes of their own, started in a moment.

They are forked from a process that has imported what they need, which takes longer than all else that a driver does
before its first trial.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylora.run.prepare import Run

# Where a driver writes the fingerprints of its hosts' models once its run is over.
CHECKSUMS = "RAYLORA_CHAOS_CHECKSUMS"


@dataclass(frozen=True)
class Driver:
    """A command that was started; `output` is what it prints."""

    pid: int
    output: Path

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs, and where it was killed."""
        try:
            return int(_status_file(self.output).read_text())
        except (OSError, ValueError):
            return None

    def kill(self) -> None:
        """Ends it as `kill -9` does; returns once it has gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        while self.alive:
            time.sleep(0.02)


class Drivers:
    """Starts drivers.

    Args:
        environment: of all of them.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    def start(self, arguments: Sequence[str | Path], output: Path, environment: Mapping[str, str]) -> Driver:
        """`raylora ARGUMENTS`, with these additions to its environment."""
        _status_file(output).unlink(missing_ok=True)
        order = {"arguments": [*map(str, arguments)], "output": str(output), "environment": dict(environment)}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Driver(int(self._process.stdout.readline()), output)

    def close(self) -> None:
        """Ends all that were started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _status_file(output: Path) -> Path:
    return output.with_suffix(".status")


# -- in the process that forks -----------------------------------------------------------------------------------------


def serve() -> None:
    """Forks a driver for each order on standard input, and tells its process id on standard output."""
    for name in ("ray.data", "ray.tune", "torch", "transformers", "searchers.language"):
        importlib.import_module(name)
    from raylora.run import experiment
    from raylora.run.prepare import stop_actors

    setattr(experiment, "stop_actors", _writing_checksums(stop_actors))  # noqa: B010
    # Nobody asks how they ended: they write it down themselves.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    started: list[int] = []
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _drive(json.loads(line))
        started.append(pid)
        print(pid, flush=True)
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _drive(order: Mapping[str, Any]) -> None:
    """Become a driver. Does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    output = Path(order["output"])
    to = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(to, 1)
    os.dup2(to, 2)
    os.environ.update(order["environment"])
    status = 1
    try:
        # The program as it is run by name: who measures it is below its command line.
        sys.argv = ["raylora", *order["arguments"]]
        runpy.run_module("raylora", run_name="__main__")
    except SystemExit as ending:
        status = int(ending.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _status_file(output).write_text(str(status))
        os._exit(status)


def _writing_checksums(stop: Callable[[Run], None]) -> Callable[[Run], None]:
    """`stop`, which before it ends the hosts of a run that is over asks them for their models' fingerprints."""

    def stopping(run: Run) -> None:
        import ray

        if sys.exc_info()[0] is None:
            found = ray.get([host.checksum.remote() for host in run.hosts])
            Path(os.environ[CHECKSUMS]).write_text(json.dumps(found))
        stop(run)

    return stopping


if __name__ == "__main__":
    serve()
