"""A head node of its own that wants a token: `ray job submit`, and who has no token."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ray.util import get_node_ip_address

# The head and whoever submits to it share a token.
AUTHENTICATION = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def head():
    """A Ray head with its dashboard in a session of its own; yields the dashboard's address, and the head's."""
    ray = str(Path(sys.executable).with_name("ray"))
    # Every port is its own: another Ray on this machine, an earlier test's for one, may hold the default ones, and
    # an agent that cannot listen never takes a job.
    port, dashboard, agent, agent_grpc = (free_port() for _ in range(4))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_ADDRESS")}
    # The job's `python` is this interpreter.
    environment |= AUTHENTICATION
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    command = [ray, "start", "--head", "--block", f"--port={port}", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-port={dashboard}", "--num-cpus=2", "--include-dashboard=true"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    url = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(url, process)
        yield url, f"{get_node_ip_address()}:{port}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{url}/api/version", timeout=2).read()
            return
        except urllib.error.HTTPError:
            return  # it answers; `ray job submit` brings the token that it may ask for
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "the head did not start"
            time.sleep(0.5)


@pytest.mark.real
def test_a_submitted_job_runs_a_spec_and_writes_nothing_into_its_working_directory(head, write_spec, tmp_path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for package in ("raylora", "searchers", "trainables", "clusters"):
        shutil.copytree(ROOT / package, work / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(write_spec(search__trials=2, final={"enabled": False}), work / "spec.yaml")
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "job", "submit", f"--address={head[0]}", "--working-dir", str(work), "--"]
    command += ["python", "-m", "raylora", "tune", "spec.yaml", "search.trials=1"]
    for _ in range(30):
        done = subprocess.run(command, env=os.environ | AUTHENTICATION, text=True, capture_output=True, timeout=240)
        # The dashboard answers a little before the agent that starts jobs does.
        if "No available agent" not in done.stderr:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert (tmp_path / "runs" / "run" / "summary.json").is_file()


@pytest.mark.real
def test_who_has_not_the_clusters_token_is_refused_in_one_line_and_who_has_it_is_let_in(
    head, write_spec, tmp_path
) -> None:
    """As docs/clusters.md says it of tokens: from the environment, else from the file in the home folder."""
    dashboard, address = head
    spec = write_spec(search__trials=1, final={"enabled": False})
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    plain |= {"HOME": str(tmp_path / "home"), "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    (tmp_path / "home" / ".ray").mkdir(parents=True)

    def called(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "raylora", *map(str, arguments)]
        return subprocess.run(command, env=plain | environment, text=True, capture_output=True, timeout=300)

    another = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    refused = (
        "the cluster does not take this token, or there is none; allowed: RAY_AUTH_MODE=token and the cluster's own"
    )
    for arguments, environment, field in (
        (("tune", spec, "name=none", "--quiet"), {}, "RAY_ADDRESS"),
        (("tune", spec, "name=another", "--quiet"), another, "RAY_ADDRESS"),
        (("submit", spec, "--address", dashboard, "--working-dir", tmp_path), {"RAY_ADDRESS": ""}, "address"),
    ):
        done = called(*arguments, **environment)
        lines = done.stderr.strip().splitlines()
        assert (done.returncode, len(lines)) == (2, 1), done.stderr
        assert lines[0].startswith(f"raylora: {field} = ") and refused in lines[0]
    assert not list((tmp_path / "runs").glob("*/summary.json"))

    (tmp_path / "home" / ".ray" / "auth_token").write_text(AUTHENTICATION["RAY_AUTH_TOKEN"])
    done = called("tune", spec, "name=let-in", "--quiet", RAY_AUTH_MODE="token")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "let-in" / "summary.json").is_file()
