from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.run.serve.listening import Address, bind, check_host, free_port


def test_others_are_not_listened_to_without_a_key() -> None:
    with pytest.raises(UserError, match=r"--host: 0\.0\.0\.0: others can reach it; add --api-key KEY"):
        check_host("0.0.0.0", None)
    check_host("0.0.0.0", "key")
    check_host("localhost", None)


def test_a_port_that_is_taken_is_one_line() -> None:
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        with pytest.raises(UserError, match=r"--port: \d+: Address already in use; choose another, or 0 for any"):
            free_port("127.0.0.1", bound.getsockname()[1])


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_one_line(port) -> None:
    with pytest.raises(UserError, match=f"--port: {port}; allowed: 0 to 65535"):
        bind("127.0.0.1", port)


def test_the_address_has_the_port_that_was_found() -> None:
    address = Address("m", "::1", 0, None, lambda url: None)
    assert address.url(8123) == "http://[::1]:8123/v1"
