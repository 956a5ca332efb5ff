"""Runs a spec as a job on a Ray cluster: `raylora submit SPEC.yaml --address URL`.

The working directory travels to the cluster (Ray leaves out what .gitignore names), `python -m raylora tune`
runs in that copy, and its output is followed here. Nothing is written into the copy: it is gone after the
job, so the run's storage has to be an absolute path that all nodes share, or a URI.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clusters.errors import ClusterError

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Submitted:
    """A job that the cluster has taken.

    Attributes:
        job: its id. address: of the cluster's dashboard.
        state: succeeded, failed or stopped; pending where nobody waited for it; running where Ctrl-C ended the wait.
    """

    job: str
    address: str
    state: str


def entrypoint(spec: str, overrides: Iterable[str] = ()) -> str:
    """The shell command that the job runs."""
    return shlex.join(["python", "-m", "raylora", "tune", spec, *overrides])


def _inside(spec_path: str | Path, working_dir: Path) -> str:
    """The spec's path as the job sees it."""
    path = Path(spec_path).expanduser().resolve()
    if not path.is_file():
        raise ClusterError(f"spec = {str(spec_path)!r}: no such file; allowed: the path of a YAML file", field="spec")
    if not path.is_relative_to(working_dir):
        raise ClusterError(
            f"spec = {str(spec_path)!r}: outside the working directory {str(working_dir)!r} that travels to "
            "the cluster; allowed: a file inside it (--working-dir DIR)",
            field="spec",
            value=str(spec_path),
        )
    return path.relative_to(working_dir).as_posix()


def _check_storage(spec_path: Path, overrides: Iterable[str]) -> None:
    try:
        data = yaml.safe_load(spec_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: such as a 40th of May
        raise ClusterError(f"spec = {str(spec_path)!r}: cannot be read ({' '.join(str(error).split())})") from None
    storage = data.get("storage_path", "runs") if isinstance(data, dict) else "runs"
    for override in overrides:
        key, _, value = override.partition("=")
        if key.strip() == "storage_path":
            storage = value
            with contextlib.suppress(ValueError, yaml.YAMLError):
                storage = yaml.safe_load(value)
    if not re.match(r"^(/|[a-z][a-z0-9+.-]*://)", str(storage), re.IGNORECASE):
        raise ClusterError(
            f"storage_path = {storage!r}: lost with the job's working directory; allowed: an absolute path "
            "that all nodes share, or a URI (add storage_path=/shared/runs)",
            field="storage_path",
            value=storage,
        )


def submit(
    spec_path: str | Path,
    overrides: Iterable[str] = (),
    *,
    address: str,
    working_dir: str | Path = ".",
    env_vars: Mapping[str, str] | None = None,
    follow: bool = True,
    write: Callable[[str], Any] = sys.stdout.write,
    client: Any = None,
) -> Submitted:
    """Submits `raylora tune` and follows its output until it ends.

    Args:
        spec_path: the YAML file, inside `working_dir`.
        overrides: `dotted.key=value`, passed on as they are.
        address: of the cluster's dashboard, such as http://head:8265.
        working_dir: folder that travels to the cluster; its imports come first there.
        env_vars: environment of the job.
        follow: False returns once the job is accepted.
        write: takes the job's output, piece by piece.
        client: a JobSubmissionClient, instead of a new one.

    Returns:
        The job as it ended, or was accepted, without `follow`. Ctrl-C leaves it running and says how to stop it.

    Raises:
        ClusterError: one line, for a spec outside the working directory, storage that a job would lose, an address
            where no cluster answers, or one that does not take this token.
    """
    overrides = list(overrides)
    folder = Path(working_dir).expanduser().resolve()
    spec = _inside(spec_path, folder)
    _check_storage(folder / spec, overrides)
    if client is None:
        client = _client(address)
    runtime_env: dict[str, Any] = {"working_dir": str(folder)}
    if env_vars:
        runtime_env["env_vars"] = dict(env_vars)
    job = client.submit_job(entrypoint=entrypoint(spec, overrides), runtime_env=runtime_env)
    write(f"submitted {job} to {address}\n")
    if not follow:
        return Submitted(job, address, "pending")
    try:
        asyncio.run(_follow(client, job, write))
        status = _wait_for_end(client, job)
    except KeyboardInterrupt:
        write(f"\n{job} goes on; stop it with: ray job stop --address {address} {job}\n")
        return Submitted(job, address, "running")
    if status != "SUCCEEDED":
        message = (client.get_job_info(job).message or "").strip()
        write(f"{job} {status.lower()}" + (f": {message}" if message else "") + "\n")
    return Submitted(job, address, status.lower())


def _client(address: str) -> Any:
    """Ray's client for the cluster, which has answered."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise ClusterError(
            f"address = {address!r}: the cluster does not take this token, or there is none; allowed: "
            "RAY_AUTH_MODE=token and the cluster's own token in RAY_AUTH_TOKEN or ~/.ray/auth_token",
            field="address",
            value=address,
        ) from None
    except Exception as error:  # Ray raises many kinds for an address that nobody answers
        raise ClusterError(
            f"address = {address!r}: no Ray cluster answers ({' '.join(str(error).split())[:160]}); "
            "allowed: the dashboard's URL, such as http://head:8265",
            field="address",
            value=address,
        ) from None


async def _follow(client: Any, job: str, write: Callable[[str], Any]) -> None:
    async for piece in client.tail_job_logs(job):
        write(piece)


def _wait_for_end(client: Any, job: str, pause_s: float = 0.5) -> str:
    """The log stream may close a moment before the job's state changes."""
    while True:
        status = str(getattr(client.get_job_status(job), "value", client.get_job_status(job)))
        if status in _ENDED:
            return status
        time.sleep(pause_s)
