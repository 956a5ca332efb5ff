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
from typing import Any

from clusters.errors import ClusterError

_URI = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_PATIENCE_S = 5.0  # network file systems may show a new file late


def _probe(folder: str, marker: str, token: str, answer: str) -> str | None:
    """Runs on a node: reads the driver's marker, writes an answer. Returns what went wrong, or None."""
    error = _wait_for(folder, marker, token)
    if error:
        return error
    try:
        _write(folder, answer, token)
    except OSError as problem:
        return f"cannot write there ({_why(problem)})"
    return None


def _store(place: str) -> tuple[Any, str] | None:
    """The file system of an address in an object store and the path there; None for a folder."""
    if not _URI.match(place):
        return None
    from pyarrow.fs import FileSystem

    files, path = FileSystem.from_uri(place)
    return files, path


def _read(place: str, name: str) -> str:
    store = _store(place)
    if store is None:
        return (Path(place) / name).read_text()
    with store[0].open_input_file(f"{store[1]}/{name}") as stream:
        return stream.read().decode()


def _write(place: str, name: str, text: str) -> None:
    store = _store(place)
    if store is None:
        Path(place).mkdir(parents=True, exist_ok=True)
        (Path(place) / name).write_text(text)
        return
    with store[0].open_output_stream(f"{store[1]}/{name}") as stream:
        stream.write(text.encode())


def _remove(place: str, name: str) -> None:
    with contextlib.suppress(OSError):
        store = _store(place)
        if store is None:
            (Path(place) / name).unlink()
        else:
            store[0].delete_file(f"{store[1]}/{name}")


def _why(problem: OSError) -> str:
    return problem.strerror or " ".join(str(problem).split())[:160]


def _wait_for(place: str, name: str, token: str) -> str | None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if _read(place, name) == token:
                return None
            error = "sees another file"
        except FileNotFoundError:
            error = "does not see the driver's file"
        except OSError as problem:
            error = f"cannot read there ({_why(problem)})"
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
    """Checks that every live node of the connected Ray cluster shares this process's storage. A single node passes.

    Args:
        path: absolute folder, made where it is missing, or an address in an object store, for which every node needs
            credentials.
        timeout_s: seconds that the nodes have to answer; hundreds that read Python from one file server are slow.
        nodes, ask: the cluster's nodes and how they are asked; for tests.

    Raises:
        ClusterError: one line that names the path, the nodes and the remedy.
    """
    if nodes is None:
        import ray

        nodes = ray.nodes()
    alive = [node for node in nodes if node.get("Alive", True)]
    if len(alive) <= 1:
        return
    token = uuid.uuid4().hex
    marker = f".raylora-{token}"
    answers = [f"{marker}-{number}" for number in range(len(alive))]
    try:
        try:
            _write(path, marker, token)
        except OSError as problem:
            raise ClusterError(
                f"storage_path = {path!r}: cannot write there ({_why(problem)}); allowed: shared storage",
                field="storage_path",
                value=path,
            ) from None
        replies = ask(alive, [(path, marker, token, answer) for answer in answers], timeout_s)
        bad = []
        for node, answer, reply in zip(alive, answers, replies, strict=True):
            if reply is None and _wait_for(path, answer, token):
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
            _remove(path, name)
