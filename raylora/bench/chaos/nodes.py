"""The Ray cluster that searches run on: its nodes can be killed and come back, its head too where there is Redis."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Nodes:
    """A cluster of nodes on this machine, each with two CPUs.

    Args:
        count: of nodes; the first is the head.
        redis: where the head keeps its tables, `host:port`; without it, they die with it.
        environment: of all of its processes.
    """

    def __init__(self, count: int, redis: str | None, environment: Mapping[str, str]) -> None:
        from ray.cluster_utils import Cluster

        self._environment = {**environment, **({"RAY_REDIS_ADDRESS": redis} if redis else {})}
        with changed_environment(self._environment):
            self._cluster = Cluster()
            self._add(include_dashboard=False)
            for _ in range(count - 1):
                self._add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def count(self) -> int:
        """Nodes that are there."""
        return sum(bool(node["Alive"]) for node in self._cluster.global_state.node_table())

    def kill_raylet(self, pause_s: float) -> None:
        """kill -9 of the raylet of the node that is not the head's; another node joins after a while."""
        import ray._private.ray_constants as names

        (node,) = self._cluster.worker_nodes
        node.all_processes[names.PROCESS_TYPE_RAYLET][0].process.kill()
        time.sleep(pause_s)
        self.leave()
        self.join()

    def join(self, environment: Mapping[str, str] | None = None) -> Any:
        """Another node joins, and is given; `environment` adds to that of its processes."""
        with changed_environment({**self._environment, **(environment or {})}):
            return self._add()

    def leave(self, node: Any = None) -> None:
        """A node ends, with all of its processes; by default any but the head's."""
        gone = node or next(iter(self._cluster.worker_nodes))
        self._cluster.remove_node(gone, allow_graceful=False)

    def kill_gcs(self, pause_s: float) -> None:
        """kill -9 of the head's tables; they come back after a while, at the same address."""
        head = self._cluster.head_node
        head.kill_gcs_server()
        time.sleep(pause_s)
        with changed_environment(self._environment):
            head.start_gcs_server()

    def close(self) -> None:
        self._cluster.shutdown()

    def _add(self, **options: Any) -> Any:
        return self._cluster.add_node(num_cpus=2, object_store_memory=80 << 20, **options)


@contextlib.contextmanager
def changed_environment(changes: Mapping[str, str]) -> Iterator[None]:
    """`os.environ` with these changes for the duration: processes that are started within inherit them."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def has_redis() -> bool:
    """Whether a Redis server is installed."""
    return shutil.which("redis-server") is not None


@contextlib.contextmanager
def redis(log: Path) -> Iterator[str]:
    """A Redis server of its own, in memory alone; gives its address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start; see {log}")
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
