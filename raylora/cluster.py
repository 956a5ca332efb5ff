"""Connection to Ray: a local one on a laptop, the running one inside a job or where RAY_ADDRESS names it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping

from raylora.errors import UserError, user_error_of

# Ray reads these when it is imported or started.
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "1",
    # Hosts and the surrogate share the cores: a thread that waits must not spin for long. But not to spin at all costs
    # small batches half of their speed, waking threads for thousands of short loops per step.
    "GOMP_SPINCOUNT": "20000",
    # Tune would end the search as if its time were over: Ctrl-C has to interrupt the run.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextlib.contextmanager
def connected(quiet: bool = True) -> Iterator[None]:
    """Connect to Ray for the duration; a connection that is already there is used and left open.

    What a remote call raised as a UserError leaves as that, see `users_errors`.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        with users_errors():
            yield
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    _check_reachable(address)
    options = {"include_dashboard": False} if address == "local" else {}
    _start(address, options)
    # Ray Data's progress bars and Tune's per-trial notes say less than our own lines.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    _hold_back_notes()
    try:
        with users_errors():
            yield
    finally:
        ray.shutdown()


def _hold_back_notes() -> None:
    """Keep Ray from printing a paragraph on standard output for each process that dies.

    Answers are printed there, and who waited for the process is told by the error that the call ends with.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *args, **kwargs: None


def _start(address: str, options: Mapping[str, object], tries: int = 5) -> None:
    """Start or join Ray; a local one that is not up in Ray's own patience, on a busy machine, is started again."""
    import ray

    for left in reversed(range(tries)):
        refusals: list[bytes] = []
        try:
            with _without_start_notes(refusals), _to_itself(address == "local"):
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray raises bare Exceptions here
            ray.shutdown()
            if left and address == "local":
                continue
            if refusals:
                raise UserError(
                    f"RAY_ADDRESS = {address!r}: the cluster does not take this token, or there is none; allowed: "
                    "RAY_AUTH_MODE=token and the cluster's own token in RAY_AUTH_TOKEN or ~/.ray/auth_token",
                    field="RAY_ADDRESS",
                    value=address,
                ) from None
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            what = "does not start" if address == "local" else f"cannot be reached at {address}"
            raise UserError(
                f"Ray: {what}: {why}; `raylora doctor` looks at the machine", field="RAY_ADDRESS"
            ) from error
        return


def _check_reachable(address: str, seconds: float = 10.0) -> None:
    """Raises UserError where nothing listens at a cluster's `host:port`: Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS = {address!r}: no cluster there ({error.strerror or error}); unset it to run on this "
            "machine, or start the cluster",
            field="RAY_ADDRESS",
            value=address,
        ) from None


@contextlib.contextmanager
def users_errors() -> Iterator[None]:
    """A user's mistake that a remote call found is raised as itself, fields and all, without the call's traceback."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        raise (user_error_of(error) or error) from None


@contextlib.contextmanager
def _to_itself(alone: bool) -> Iterator[None]:
    """Have a Ray that is started within listen to this machine alone, as one on macOS or Windows does by itself.

    Elsewhere its node has the machine's address, and others could reach it. What it has been told holds for all of its
    processes, which inherit the environment.
    """
    if not alone:
        yield
        return
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR)
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]
        else:
            os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = before[1]


@contextlib.contextmanager
def _without_start_notes(refusals: list[bytes]) -> Iterator[None]:
    """Hold back what Ray's core writes to standard error while it starts.

    All is passed on but its remark that it took its log level from the environment, which it makes before that level
    holds, and its lines, one a second, that a cluster takes no such token: these are put into `refusals`.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        original = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            held.seek(0)
            for line in held:
                if b"InvalidAuthToken" in line:
                    refusals.append(line)
                elif b"Set ray log level from environment variable" not in line:
                    os.write(original, line)
            os.close(original)
