"""`raylora submit --slurm` on a Slurm of its own: a controller and two nodes, all on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DAEMONS = ("munged", "slurmctld", "slurmd")

CONFIGURATION = """
ClusterName=raylora
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=all Nodes=n1,n2 Default=YES State=UP
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands speak to a controller with two idle nodes."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    if not all(shutil.which(name, path=path) for name in DAEMONS):
        pytest.skip("Slurm is not installed (munge, slurm-client, slurmctld, slurmd)")
    if os.geteuid() != 0:
        pytest.skip("a node of Slurm needs root to start jobs")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().split(".")[0]
    configuration = CONFIGURATION.format(host=host, user="root", folder=folder, ports=free_ports(3))
    (folder / "slurm.conf").write_text(configuration)
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf"), "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    munge = ["munged", "--foreground", "--force", "--num-threads=1"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = [[*munge, f"--socket={folder}/munge.socket"], ["slurmctld", "-D"]]
    commands += [["slurmd", "-D", "-N", node] for node in ("n1", "n2")]
    daemons = []
    try:
        for command in commands:
            with (folder / "daemons.log").open("a") as log:
                daemons.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
                )
            if command[0] == "munged":
                wait_until((folder / "munge.socket").exists)
        idle = ["n1", "idle", "n2", "idle"]
        wait_until(lambda: told(environment, "sinfo", "--noheader", "--Node", "--format=%N %T").split() == idle)
        yield environment
    finally:
        # Killed at once, a node would leave its job behind.
        told(environment, "scancel", "--full", "--signal=KILL", "--user=root")
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not told(environment, "squeue", "--noheader"), 20.0)
        for daemon in reversed(daemons):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        shutil.rmtree(folder)


def told(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def wait_until(true, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "Slurm did not start"
        time.sleep(0.2)


@pytest.mark.real
def test_a_job_on_two_nodes_has_a_ray_over_both_and_finishes_its_run(slurm, write_spec, tmp_path) -> None:
    spec = write_spec(search__trials=1, final={"enabled": False}, resources={"hosts": 1, "cpus_per_host": 1})
    command = [sys.executable, "-m", "raylora", "submit", spec, "--slurm", "--nodes=2", "--sbatch=--wait", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=slurm, capture_output=True, text=True, timeout=240, check=False)
    output = "\n".join(file.read_text() for file in tmp_path.glob("slurm-*.out"))
    assert done.returncode == 0, done.stderr + output
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert "nodes: 2 are up" in output
    assert (tmp_path / "runs" / "run" / "summary.json").is_file()
