"""Searches on several nodes of a Ray cluster, all on this machine, each with caches of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from raylora.bench.chaos import invariants
from raylora.bench.chaos.nodes import Nodes
from raylora.run.requests import change_trials
from trainables.journal import Journal

ROOT = Path(__file__).resolve().parents[3]
NAME, COMMIT = "tiny/model", "0" * 40


class Hub(ThreadingHTTPServer):
    """A hub with one model, that counts who fetches which file."""

    def __init__(self, model: Path) -> None:
        self.files = {file.name: file.read_bytes() for file in model.iterdir() if file.is_file()}
        self.fetched: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), Answers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        files = self.server.files
        if path.startswith(f"/api/models/{NAME}/tree/"):
            told: Any = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            data = json.dumps(told).encode()
        elif path.startswith(f"/api/models/{NAME}"):
            siblings = [{"rfilename": name} for name in files]
            data = json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}).encode()
        elif path.startswith(f"/{NAME}/resolve/") and Path(path).name in files:
            data = files[Path(path).name]
            self.server.fetched[Path(path).name] += body
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@dataclass(frozen=True)
class Two:
    """A cluster of two nodes with two CPUs each, and the hub that they fetch from."""

    nodes: Nodes
    hub: Hub
    environment: dict[str, str]

    def start(self, folder: Path, *arguments: str | Path) -> subprocess.Popen[str]:
        """`raylora ARGUMENTS`, on the first node; what it prints goes to `folder/output.txt`."""
        with (folder / "output.txt").open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "raylora", *map(str, arguments)],
                env=os.environ | self.environment | {"RAY_ADDRESS": self.nodes.address},
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )


@pytest.fixture(scope="module")
def two(tiny_model, tmp_path_factory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("nodes")
    with Hub(tiny_model) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        shared = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "PYTHONPATH": path, "HF_HUB_DISABLE_XET": "1"}
        homes = [own_caches(folder / str(number)) for number in range(2)]
        nodes = Nodes(1, None, shared | homes[0])
        try:
            nodes.join(homes[1])
            yield Two(nodes, hub, shared | homes[0])
        finally:
            nodes.close()
            hub.shutdown()


def own_caches(folder: Path) -> dict[str, str]:
    """What a node keeps for itself: of the hub's client, and of raylora."""
    return {"HF_HOME": str(folder / "hub"), "RAYLORA_HOME": str(folder / "raylora")}


def until(true: Callable[[], object], driver: subprocess.Popen[str], folder: Path, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        output = (folder / "output.txt").read_text()
        assert driver.poll() is None, f"the run has ended: {output}"
        assert time.monotonic() < deadline, output
        time.sleep(0.2)


def hosts_in(rows: list[dict[str, Any]]) -> set[str]:
    return {row["host"] for row in rows if row["event"] in ("start", "continue")}


@contextlib.contextmanager
def apart(two: Two, storage: Path) -> Iterator[None]:
    """For the duration, a node more that has a folder of its own at the path `storage`, and sees all else as it is."""
    ray = Path(sys.executable).with_name("ray")
    start = f"{ray} start --address={two.nodes.address} --num-cpus=2 --object-store-memory={80 << 20} --block"
    command = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs '{storage}' && exec {start}"]
    there, environment = two.nodes.count(), os.environ | two.environment
    with (storage.parent / "node.txt").open("w") as output:
        node = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + 200
        while two.nodes.count() <= there:
            told = (storage.parent / "node.txt").read_text()
            assert node.poll() is None and time.monotonic() < deadline, f"the node did not start: {told}"
            time.sleep(0.5)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        deadline = time.monotonic() + 200
        while two.nodes.count() > there:  # until then Ray takes it for one that is there
            assert time.monotonic() < deadline, "the node is still there"
            time.sleep(0.5)


@pytest.mark.real
def test_the_model_is_fetched_once_by_each_node_whatever_its_hosts(two, write_spec, tmp_path) -> None:
    resources = {"hosts": "auto", "cpus_per_host": 1}
    spec = write_spec(model=NAME, search__trials=4, resources=resources, final={"enabled": False})
    driver = two.start(tmp_path, "tune", spec)
    assert driver.wait(600) == 0, (tmp_path / "output.txt").read_text()
    output = (tmp_path / "output.txt").read_text()
    assert "hosts: loading the model on 4" in output
    assert two.hub.fetched["model.safetensors"] == 2
    assert len(hosts_in(Journal(tmp_path / "runs" / "run").rows())) >= 2


@pytest.mark.real
def test_storage_that_a_node_does_not_share_is_refused_in_one_line(two, write_spec, tmp_path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a node a folder of its own")
    (tmp_path / "runs").mkdir()
    with apart(two, tmp_path / "runs"):
        status = two.start(tmp_path, "tune", write_spec(search__trials=1), "--quiet").wait(400)
    lines = (tmp_path / "output.txt").read_text().strip().splitlines()
    assert status == 2 and len(lines) == 1, lines
    assert f"storage_path = '{tmp_path / 'runs' / 'run'}': not shared by all 3 nodes (node " in lines[0]
    assert "does not see the driver's file" in lines[0] and "allowed: a folder that every node mounts" in lines[0]


@pytest.mark.real
def test_a_node_that_leaves_takes_no_result_with_it_and_one_that_joins_is_used(two, write_spec, tmp_path) -> None:
    spec = write_spec(
        # More than there is time for: their number is changed once all has happened.
        search__trials=120,
        space__learning_rate=[1e-4 * step for step in range(1, 9)],
        resources={"hosts": "auto", "cpus_per_host": 2},
        train={"samples": 400, "reports": 2, "checkpoint_every_s": 0.3},
        final={"samples": 8},
    )
    run = tmp_path / "runs" / "run"

    def rows() -> list[dict[str, Any]]:
        return Journal(run).rows() if (run / "trials.jsonl").is_file() else []

    def said(line: str) -> bool:
        return line in (tmp_path / "output.txt").read_text()

    driver = two.start(tmp_path, "tune", spec)
    try:
        until(lambda: hosts_in(rows()) == {"host-0", "host-1"} and invariants.finished(rows()), driver, tmp_path)
        two.nodes.leave()
        until(lambda: said("hosts: 1 instead of 2"), driver, tmp_path)
        if os.geteuid() == 0:
            with apart(two, tmp_path / "runs"):
                until(lambda: said(f"storage_path = '{run}': not shared"), driver, tmp_path)
        two.nodes.join()
        until(lambda: said("hosts: 2 instead of 1") and "host-2" in hosts_in(rows()), driver, tmp_path)
        asked = len(invariants.finished(rows())) + 3
        change_trials(run, asked)
        assert driver.wait(600) == 0, (tmp_path / "output.txt").read_text()
    finally:
        driver.kill()
    assert invariants.broken(run, asked) == [], (tmp_path / "output.txt").read_text()
