from __future__ import annotations

import json
import re
import signal
import urllib.request

import pytest


def test_others_need_a_key(workplace, mistake, monkeypatch) -> None:
    monkeypatch.delenv("RAYLORA_API_KEY", raising=False)
    told = mistake("serve", workplace / "runs" / "sums", "--host", "0.0.0.0")
    assert told.startswith("--host: 0.0.0.0: ") and "--api-key" in told


def test_a_run_without_an_adapter_is_one_line(workplace, mistake) -> None:
    assert "has no adapter" in mistake("serve", workplace / "runs" / "again")


@pytest.mark.real
def test_a_run_is_served_until_ctrl_c_which_is_quiet(old_run, start_raylora) -> None:
    server = start_raylora("serve", old_run("finished"), "--port", "0", "--name", "sums")
    try:
        told = iter(server.stdout.readline, "")
        url = next(found.group() for line in told if (found := re.search(r"http://127\.0\.0\.1:\d+/v1", line)))
        body = json.dumps({"messages": [{"role": "user", "content": "What is 1 + 1?"}]}).encode()
        ask = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(ask, timeout=60) as answer:
            assert json.load(answer)["model"] == "sums"
        server.send_signal(signal.SIGINT)
        rest, _ = server.communicate(timeout=30)
        assert (server.returncode, rest) == (0, "")
    finally:
        server.kill()
