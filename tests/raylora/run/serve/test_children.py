"""Servers of other packages, stood in for by one of the standard library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from raylora.errors import RunFailed
from raylora.run.serve.children import serve_child
from raylora.run.serve.listening import Address, free_port

# Answers once after `/health`, with what it was given, and ends.
SERVER = """
import http.server, os, sys
given = sys.stdin.read() + os.environ["SECRET"]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(given.encode())

    def log_message(self, *arguments):
        pass

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.handle_request()
server.handle_request()
sys.exit(3)
"""


def test_its_address_is_told_once_it_answers_and_its_end_is_one_line() -> None:
    said: list[str] = []

    def told(url: str) -> None:
        with urllib.request.urlopen(url) as answer:
            said.append(answer.read().decode())

    port = free_port("127.0.0.1", 0)
    with pytest.raises(RunFailed, match="--engine: the server ended with status 3; the lines above say why"):
        serve_child(
            [sys.executable, "-c", SERVER, str(port)],
            Address("m", "127.0.0.1", 0, None, told),
            port,
            environment={"SECRET": "!"},
            given=json.dumps("hello"),
        )
    assert said == ['"hello"!']


# Tells its process id, and lives on.
PATIENT = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
MANAGED = """
import sys
from raylora.run.serve.children import serve_child
from raylora.run.serve.listening import Address

serve_child([sys.executable, "-c", sys.argv[1]], Address("m", "127.0.0.1", 0, None, print), int(sys.argv[2]))
"""


def test_a_process_that_is_told_to_end_takes_its_server_with_it() -> None:
    command = [sys.executable, "-c", MANAGED, PATIENT, str(free_port("127.0.0.1", 0))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        server = int(process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
