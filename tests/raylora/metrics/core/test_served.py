from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from raylora.errors import UserError
from raylora.metrics.core.served import ServedModel


class Service(HTTPServer):
    """Answers chat requests with `replies` in turn: a text, or a status; keeps what it was asked."""

    def __init__(self, replies):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.asked, self.keys = list(replies), [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        self.server.keys.append(self.headers.get("Authorization"))
        reply = self.server.replies.pop(0)
        status = reply if isinstance(reply, int) else 200
        content = (
            b"{}" if isinstance(reply, int) else json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
        )
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    """Starts a service with replies; it ends with the test."""
    services = []

    def start(*replies):
        services.append(Service(replies))
        return services[-1]

    yield start
    for service in services:
        service.shutdown()
        service.server_close()


def client(service, tmp_path, **options):
    options = {"retries": 2, "pause": 0.0, "timeout": 10, **options}
    return ServedModel(address=service.address, model="m", key_variable="TEST_KEY", cache=str(tmp_path), **options)


def test_it_asks_as_the_protocol_says(serve, tmp_path):
    service = serve("fine")
    assert client(service, tmp_path).ask("How?") == "fine"
    ((path, body),) = service.asked
    assert path == "/v1/chat/completions"
    assert body["model"] == "m" and body["messages"] == [{"role": "user", "content": "How?"}]


def test_the_same_question_is_asked_once(serve, tmp_path):
    service = serve("fine")
    assert [client(service, tmp_path).ask("How?") for _ in range(3)] == ["fine"] * 3
    assert len(service.asked) == 1


def test_a_busy_service_is_asked_again(serve, tmp_path):
    service = serve(429, 503, "fine")
    assert client(service, tmp_path).ask("How?") == "fine"


def test_a_refusal_is_not_asked_again(serve, tmp_path):
    service = serve(401, "fine")
    with pytest.raises(UserError, match=r"judge\.address: .* gave no answer \(401 .*takes the key in TEST_KEY"):
        client(service, tmp_path).ask("How?")
    assert len(service.asked) == 1


def test_a_service_that_stays_away_is_named_in_one_line(serve, tmp_path):
    service = serve(500, 500, 500)
    with pytest.raises(UserError, match=r"gave no answer \(500 "):
        client(service, tmp_path).ask("How?")


def test_the_key_is_sent_and_kept_nowhere(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "secret-of-this-test")
    service = serve("fine", 401)
    asker = client(service, tmp_path)
    asker.ask("How?")
    with pytest.raises(UserError) as refused:
        asker.ask("Again?")
    assert service.keys[0] == "Bearer secret-of-this-test"
    kept = "".join(file.read_text() for file in tmp_path.iterdir()) + str(vars(asker)) + str(refused.value)
    assert "fine" in kept and "secret" not in kept


def test_a_redirection_is_not_followed(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "secret-of-this-test")
    service = serve(302, "fine")
    with pytest.raises(UserError, match=r"302"):
        client(service, tmp_path).ask("How?")
    assert len(service.asked) == 1
