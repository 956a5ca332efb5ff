"""Clusters that are named but not there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from raylora.cluster import _check_reachable, _start
from raylora.errors import UserError


def test_a_cluster_that_is_gone_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(UserError, match=rf"^RAY_ADDRESS = '127.0.0.1:{port}': no cluster there"):
        _check_reachable(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["local", "auto"])
def test_addresses_that_ray_finds_by_itself_are_left_to_it(address) -> None:
    _check_reachable(address)


def test_a_cluster_that_takes_no_such_token_is_one_line(monkeypatch, capfd) -> None:
    import ray

    def init(**options: object) -> None:
        os.write(2, b"W gcs_client.cc:210: Unauthenticated: RPC error: InvalidAuthToken: missing or incorrect\n" * 3)
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=r"^RAY_ADDRESS = '10.0.0.1:6379': the cluster does not take this token"):
        _start("10.0.0.1:6379", {})
    assert capfd.readouterr().err == ""


@pytest.mark.real
def test_a_ray_that_is_started_here_listens_to_this_machine_alone() -> None:
    code = """
import json, psutil, ray
from raylora.cluster import connected
with connected():
    ray.get(ray.remote(lambda: None).remote())
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
print(json.dumps(listening))
"""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    listening = json.loads(done.stdout)
    assert listening and set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
