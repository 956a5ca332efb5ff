from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from raylora.errors import UserError
from raylora.run.push import push


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload of small files asks for."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = self.server.told
        told.append((self.path, self.headers.get("Authorization")))
        if self.server.refuse:
            return self._answer(403, {"error": "you may not write there"})
        if self.path.endswith("/repos/create"):
            return self._answer(200, {"url": f"{self.server.address}/me/sums"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self._answer(
                200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if self.path.endswith("/validate-yaml"):
            return self._answer(200, {"errors": [], "warnings": []})
        for line in body.decode().splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                self.server.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
        url = f"{self.server.address}/me/sums/commit/{0:040}"
        return self._answer(200, {"commitUrl": url, "commitOid": "0" * 40, "success": True})

    def do_GET(self) -> None:
        self._answer(200, {"id": "me/sums", "sha": "0" * 40, "siblings": []})

    def _answer(self, status: int, told: dict) -> None:
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.told, server.files, server.refuse = [], {}, False
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")

    class Api(huggingface_hub.HfApi):
        def __init__(self) -> None:
            super().__init__(endpoint=address, token="hf_made_up")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.address = address
    yield server
    server.shutdown()
    server.server_close()


def test_adapter_and_card_arrive_and_name_a_base_that_others_have(old_run, hub) -> None:
    assert push(old_run("finished"), "me/sums", base="org/base") == f"{hub.address}/me/sums"
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= set(hub.files)
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    assert b"base_model: org/base" in hub.files["README.md"]


def test_a_base_that_nobody_else_has_is_asked_for_before_anything_is_sent(old_run, hub) -> None:
    with pytest.raises(UserError, match="--base"):
        push(old_run("finished"), "me/sums")
    assert not hub.told


def test_a_hub_that_refuses_is_one_line(old_run, hub) -> None:
    hub.refuse = True
    with pytest.raises(UserError, match="REPO: the hub does not take 'me/sums'") as caught:
        push(old_run("finished"), "me/sums", base="org/base")
    assert "\n" not in str(caught.value)


def test_a_name_without_an_owner_is_one_line(old_run) -> None:
    with pytest.raises(UserError, match="ORG/NAME"):
        push(old_run("finished"), "sums")
