"""A command on several nodes begins when all of them are there, or tells how many are not."""

from __future__ import annotations

import socket

import pytest

from clusters import nodes
from clusters.errors import ClusterError
from clusters.nodes import wait_for_nodes


def test_waits_until_the_last_node_has_joined() -> None:
    counts = [0, 1, 1, 3]
    wait_for_nodes(3, pause_s=0, alive=lambda: counts.pop(0))
    assert counts == []


def test_nodes_that_do_not_come_are_one_line() -> None:
    with pytest.raises(ClusterError, match=r"^nodes: 1 of 2 are up after 0 s") as caught:
        wait_for_nodes(2, patience_s=0, pause_s=0, alive=lambda: 1)
    assert (caught.value.value, caught.value.allowed) == (1, 2)


def test_head_that_is_not_up_counts_no_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
    assert nodes.alive() == 0
