"""What went wrong beneath a run, in one line; the traceback goes to the run's log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from clusters.errors import ClusterError
from raylora.errors import RunFailed, user_error_of
from trainables.journal import ERRORS, log_traceback
from trainables.store import told as run_of

_LONGEST = 300
_TRACEBACK = "Traceback (most recent call last)"
# Their error lines come with tracebacks.
_LOGGERS = ("ray.tune", "ray.train")


def why(error: BaseException) -> str:
    """The error in one line: what a remote call failed with, rather than Ray's account of it."""
    from ray.exceptions import RayActorError

    from trainables.hosted import last_line

    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        error = cause
    if isinstance(error, RayActorError):
        return last_line(error)[:_LONGEST]
    told = f"{type(error).__name__}: {error}"
    if _TRACEBACK in told:  # Tune's errors have another's as their message: it ends with what that one says
        told = told.strip().splitlines()[-1]
    return " ".join(told.split())[:_LONGEST]


@contextlib.contextmanager
def told_in_one_line(folder: Path, told: str | None = None) -> Iterator[None]:
    """Whatever fails within is logged in the run's folder and raised as a line that says how to go on.

    Args:
        told: how to go on, where that is not as with a run.

    Raises:
        RunFailed: in the place of anything but a user's mistake and an interrupt.
    """
    try:
        yield
    except ClusterError:
        raise
    except Exception as error:
        mistake = user_error_of(error)
        if mistake is not None:
            raise mistake from None
        log_traceback(folder, "run", error)
        log = folder / ERRORS
        # In a folder that cannot be written there is none.
        logged = f"{log} has the traceback, and " if log.is_file() else ""
        raise RunFailed(
            f"the run stopped: {why(error)}; {logged}" + (told or f"`raylora resume {run_of(folder)}` goes on"),
            field="RUN_DIR",
            value=str(folder),
        ) from error


@contextlib.contextmanager
def logged_apart(folder: Path) -> Iterator[None]:
    """What Tune and Ray Train log as errors goes to the run's log, not to the screen."""
    handler = logging.FileHandler(folder / ERRORS, delay=True)
    handler.setLevel(logging.ERROR)
    before = {name: logging.getLogger(name).propagate for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).propagate = False
    try:
        yield
    finally:
        for name, propagate in before.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).propagate = propagate
        with contextlib.suppress(OSError):  # of a full disk: what was logged last is lost
            handler.close()
