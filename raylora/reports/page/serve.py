"""The page of a run that goes on, served to browsers on this machine."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from raylora.errors import UserError
from raylora.reports.page.page import render
from raylora.run.folder import read_run
from raylora.run.stored import is_stored
from trainables.journal import OBJECTS
from trainables.store import store_of

HOST = "127.0.0.1"
# Names by which a browser may ask: a page elsewhere whose name was turned to this address may not.
_HOSTS = ("localhost", HOST)
# What changes where a run goes on.
_WATCHED = ("trials.jsonl", "summary.json", "data.json", "curvature.json")


class PageServer(ThreadingHTTPServer):
    """Serves `/`, the page, made anew where the runs' files have changed, and `/state`, which tells that they have.

    Args:
        runs: folders of runs. port: 0 takes a free one. rows: see `write_page`.
        every_s: least seconds between two pages; four times as long as one takes, so that the run has the machine.

    Raises:
        UserError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, runs: Sequence[str | Path], port: int = 0, *, rows: bool = True, every_s: float = 5.0) -> None:
        self.runs = [read_run(run)[0] if is_stored(run) else Path(run).expanduser() for run in runs]
        self.rows, self.every_s = rows, every_s
        self._making = threading.Lock()
        self._page: tuple[str, bytes] = ("", b"")
        self._fresh_until = 0.0
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError.at(
                "--port", f"{port}: {error.strerror or error}; choose another, or 0 for any", value=port
            ) from None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_address[1]}/"

    def version(self) -> str:
        """Of the files as they are."""
        digest = hashlib.sha256()
        for run in self.runs:
            if (store := store_of(run)) is not None:
                digest.update(f"{len(store.names(OBJECTS))} ".encode())
            for name in _WATCHED:
                try:
                    stat = (run / name).stat()
                    digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns} ".encode())
                except OSError:
                    digest.update(b"- ")
        return digest.hexdigest()

    def page(self) -> bytes:
        """The page, of the files as they are or were a moment ago."""
        with self._making:
            if not self._page[1] or self.state() != self._page[0]:
                version, began = self.version(), time.monotonic()
                page = render(self.runs, rows=self.rows, live=version).encode()
                took = time.monotonic() - began
                self._page = (version, page)
                self._fresh_until = time.monotonic() + max(self.every_s, 4 * took)
            return self._page[1]

    def state(self) -> str:
        """The version that a page asked for now would have."""
        return self._page[0] if time.monotonic() < self._fresh_until else self.version()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A browser asks."""
        if self.headers.get("Host", "").rpartition(":")[0] not in _HOSTS:
            self._answer(HTTPStatus.FORBIDDEN, b"ask localhost\n", "text/plain")
        elif self.path == "/":
            try:
                self._answer(HTTPStatus.OK, self.server.page(), "text/html")
            except UserError as error:
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error}\n".encode(), "text/plain")
        elif self.path == "/state":
            self._answer(HTTPStatus.OK, self.server.state().encode(), "text/plain")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"no such page\n", "text/plain")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the terminal is the reader's."""
