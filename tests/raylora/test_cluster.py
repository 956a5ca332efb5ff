"""Clusters that are named but not there."""

from __future__ import annotations

import socket

import pytest

from raylora.cluster import _check_reachable
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
