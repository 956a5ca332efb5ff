"""Waits until a cluster is whole: `python -m clusters.nodes 4`, where RAY_ADDRESS names it.

A run that began on the first node alone could not ask the others whether they share its storage.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable

from clusters.errors import ClusterError

PATIENCE_S = 300.0
"""How long nodes may take: hundreds that read the same environment from one file server are slow to start."""


def alive() -> int:
    """How many nodes the cluster at RAY_ADDRESS, `host:port`, has; 0 as long as it is not up."""
    address = os.environ["RAY_ADDRESS"]
    host, _, port = address.rpartition(":")
    try:
        # Ray itself would try for minutes.
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return 0
    import ray

    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        return sum(bool(node["Alive"]) for node in ray.nodes())
    except Exception:  # Ray raises many kinds as long as the head has no node of its own
        return 0
    finally:
        ray.shutdown()


def wait_for_nodes(
    count: int, *, patience_s: float = PATIENCE_S, pause_s: float = 2.0, alive: Callable[[], int] = alive
) -> None:
    """Returns once the cluster has `count` nodes.

    Args:
        patience_s: seconds that they may take. pause_s: seconds between two looks.
        alive: counts those that are there.

    Raises:
        ClusterError: one line, where they are fewer by then.
    """
    deadline = time.monotonic() + patience_s
    while (found := alive()) < count:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"nodes: {found} of {count} are up after {patience_s:g} s; the output of `ray start` above tells why",
                field="nodes",
                value=found,
                allowed=count,
            )
        time.sleep(pause_s)


if __name__ == "__main__":
    try:
        wait_for_nodes(int(sys.argv[1]))
        print(f"nodes: {sys.argv[1]} are up", flush=True)
    except ClusterError as error:
        sys.exit(f"raylora: {error}")
