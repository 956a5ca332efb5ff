"""Is the storage of a run shared by every node of the cluster?

Trials write their checkpoints where they run and read them where they go on, so a folder that each node has
for itself loses work. This is asked before anything starts.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clusters.errors import ClusterError

_PATIENCE_S = 5.0  # network file systems may show a new file late


def _probe(folder: str, marker: str, token: str, answer: str) -> str | None:
    """Runs on a node: reads the driver's marker, writes an answer. Returns what went wrong, or None."""
    error = _wait_for(Path(folder) / marker, token)
    if error:
        return error
    try:
        (Path(folder) / answer).write_text(token)
    except OSError as problem:
        return f"cannot write there ({problem.strerror})"
    return None


def _wait_for(path: Path, token: str) -> str | None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if path.read_text() == token:
                return None
            error = "sees another file"
        except FileNotFoundError:
            error = "does not see the driver's file"
        except OSError as problem:
            error = f"cannot read there ({problem.strerror})"
        if time.monotonic() > deadline:
            return error
        time.sleep(0.1)


def _ask(
    nodes: Sequence[Mapping[str, object]], arguments: Sequence[tuple[str, ...]], timeout_s: float
) -> list[str | None]:
    """`_probe` on each node, side by side: what went wrong there, or None."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_probe)
    pending = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(*given)
        for node, given in zip(nodes, arguments, strict=True)
    ]
    done, _ = ray.wait(pending, num_returns=len(pending), timeout=timeout_s)
    replies: list[str | None] = []
    for reference in pending:
        if reference not in done:
            ray.cancel(reference, force=True)
            replies.append(f"did not answer within {timeout_s:g} s")
            continue
        try:
            replies.append(ray.get(reference))
        except ray.exceptions.RayError as error:
            replies.append(" ".join(str(error).split())[:120])
    return replies


def check_cluster_storage(
    path: str,
    *,
    timeout_s: float = 300.0,
    nodes: Sequence[Mapping[str, object]] | None = None,
    ask: Callable[..., list[str | None]] = _ask,
) -> None:
    """Checks that every live node of the connected Ray cluster shares this process's folder `path`.

    A single node passes, and so does a URI (s3://...): object stores are shared by nature, and whether the
    nodes' credentials are good shows with the first write.

    Args:
        path: absolute folder, made where it is missing.
        timeout_s: seconds that the nodes have to answer; hundreds that read Python from one file server are slow.
        nodes, ask: the cluster's nodes and how they are asked; for tests.

    Raises:
        ClusterError: one line that names the path, the nodes and the remedy.
    """
    if re.match(r"^[a-z][a-z0-9+.-]*://", path, re.IGNORECASE):
        return
    if nodes is None:
        import ray

        nodes = ray.nodes()
    alive = [node for node in nodes if node.get("Alive", True)]
    if len(alive) <= 1:
        return
    folder, token = Path(path), uuid.uuid4().hex
    marker = f".raylora-{token}"
    answers = [f"{marker}-{number}" for number in range(len(alive))]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / marker).write_text(token)
        except OSError as problem:
            raise ClusterError(
                f"storage_path = {path!r}: cannot write there ({problem.strerror}); allowed: shared storage",
                field="storage_path",
                value=path,
            ) from None
        replies = ask(alive, [(path, marker, token, answer) for answer in answers], timeout_s)
        bad = []
        for node, answer, reply in zip(alive, answers, replies, strict=True):
            if reply is None and _wait_for(folder / answer, token):
                reply = "writes elsewhere"
            if reply is not None:
                bad.append(f"node {node.get('NodeManagerAddress') or node['NodeID']} {reply}")
        if bad:
            shown = "; ".join(bad[:3]) + (f"; and {len(bad) - 3} more" if len(bad) > 3 else "")
            raise ClusterError(
                f"storage_path = {path!r}: not shared by all {len(alive)} nodes ({shown}); "
                "allowed: a folder that every node mounts at this path, or a URI such as s3://bucket/runs",
                field="storage_path",
                value=path,
            )
    finally:
        for name in (marker, *answers):
            with contextlib.suppress(OSError):
                (folder / name).unlink()
