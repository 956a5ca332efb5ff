"""Where a server listens: this machine alone, unless told otherwise, and then behind a key."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

LOCAL = ("127.0.0.1", "localhost", "::1")
# Seconds that answers have to end after Ctrl-C.
PATIENCE_S = 3


@dataclass(frozen=True)
class Address:
    """Where a model is to be had, and under which name.

    Attributes:
        name: of the model, as clients ask for it.
        key: what clients have to show; None for nothing.
        told: called with the address of the interface once it listens.
    """

    name: str
    host: str
    port: int
    key: str | None
    told: Callable[[str], None]

    def url(self, port: int | None = None) -> str:
        """The address that clients are given, of this port or another."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port if port is None else port}/v1"


def check_host(host: str, key: str | None) -> None:
    """Refuses to listen to others without a key.

    Raises:
        UserError: one line.
    """
    if host not in LOCAL and not key:
        raise UserError.at(
            "--host", f"{host}: others can reach it; add --api-key KEY, or leave --host out", value=host, allowed=LOCAL
        )


def bind(host: str, port: int) -> socket.socket:
    """A socket with that address, which does not listen yet; port 0 takes a free one.

    Raises:
        UserError: there is no such address here, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise UserError.at("--port", f"{port}; allowed: 0 to 65535", value=port)
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError.at(
            "--host", f"{host}: {error.strerror or error}; give an address of this machine", value=host
        ) from None
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise UserError.at(
            "--port", f"{port}: {error.strerror or error}; choose another, or 0 for any", value=port
        ) from None
    return bound


def free_port(host: str, port: int) -> int:
    """That port, or a free one for 0, for a server of another process.

    Raises:
        UserError: as `bind`.
    """
    with bind(host, port) as bound:
        return int(bound.getsockname()[1])


def make_server(app: Starlette, ready: Callable[[], None]) -> uvicorn.Server:
    """A server of the application, which `ready` is called by once it listens."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    return Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=PATIENCE_S))


def run(app: Starlette, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Answer at the socket until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        make_server(app, ready).run(sockets=[bound])
