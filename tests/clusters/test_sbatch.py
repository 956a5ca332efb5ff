"""What is handed to sbatch asks for what the spec needs, and the batch scripts start Ray on the nodes that they get."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clusters.errors import ClusterError
from clusters.sbatch import SCRIPTS, Share, batch_command, share, split_options, submit_batch
from clusters.submit import Submitted

# Of Slurm: takes the command that it is given, and says what it was.
SBATCH = """#!/bin/bash
printf '%s\\n' "$RAYLORA_PYTHON" "$@" > "$TOLD"
[[ -z ${REFUSE:-} ]] || { echo "sbatch: error: Batch job submission failed: $REFUSE" >&2; exit 1; }
echo "4711;west"
exit "${STATUS:-0}"
"""
SCONTROL = "#!/bin/bash\n[[ $* == 'show hostnames n[1-3]' ]] && printf '%s\\n' n1 n2 n3\n"
# Runs a step here, as on the node that it names.
SRUN = """#!/bin/bash
for word in "$@"; do [[ $word == --nodelist=* ]] && export NODE=${word#--nodelist=}; done
while [[ $1 != bash ]]; do shift; done
exec "$@"
"""
# In the place of Python: writes down what would run where.
PYTHON = """#!{python}
import os, pathlib, signal, sys, time
told, words = pathlib.Path(os.environ["TOLD"]), sys.argv[1:]
with told.open("a") as file:
    names = ("NODE", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_OVERRIDE_RESOURCES")
    known = {{name: os.environ.get(name) for name in names}}
    file.write(repr((words, known)) + "\\n")
if words[0] == "-c":
    print("10.0.0.1" if "ray" in words[1] else "secret")
if words[:2] == ["-m", "clusters.nodes"]:
    while told.read_text().count("'start'") < int(words[2]):
        time.sleep(0.01)
if words[:2] == ["-m", "raylora"]:
    if words[2] == "wait":
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        pathlib.Path(words[3]).touch()
        signal.pause()
    sys.exit(3)
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands on PATH, and the file in which they write down what they were told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("srun", SRUN), ("python", PYTHON)):
        (folder / name).write_text(text.format(python=sys.executable) if name == "python" else text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    for name in [*os.environ]:
        if name.startswith(("SLURM_", "RAY_", "RAYLORA_PYTHON")):
            monkeypatch.delenv(name)
    return tmp_path / "told"


@pytest.fixture
def in_job(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a batch script of job 7 on three nodes."""
    for name, value in {"JOB_ID": "7", "JOB_NODELIST": "n[1-3]", "CPUS_ON_NODE": "4"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def ran(told: Path) -> list[tuple[list[str], dict[str, str | None]]]:
    return [eval(line) for line in told.read_text().splitlines()]


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        ({"hosts": 1}, Share(2, 0)),
        ({"hosts": 8, "gpus_per_host": 1.0, "cpus_per_host": 8}, Share(65, 8)),
        ({"hosts": 8, "gpus_per_host": 1.0, "nodes": 3}, Share(4, 3)),
        ({"hosts": 2, "workers": 4, "gpus_per_host": 2.0, "nodes": 2}, Share(5, 8)),
        ({"hosts": 5, "gpus_per_host": 0.4}, Share(6, 3)),
        ({"hosts": 3, "gpus_per_host": 1 / 3}, Share(4, 1)),
    ],
)
def test_each_node_is_asked_for_its_part_of_the_hosts_and_for_the_drivers_core(asked: dict, needs: Share) -> None:
    assert share(**asked) == needs


def test_options_of_sbatch_come_after_what_the_spec_needs_and_before_the_script(tmp_path: Path) -> None:
    options = split_options("--partition=a100 --comment='two words' --gpus-per-node=4")
    command = batch_command(["tune", "spec.yaml"], nodes=2, needs=Share(9, 8), working_dir=tmp_path, options=options)
    assert command[:4] == ["sbatch", "--parsable", "--nodes=2", "--cpus-per-task=9"]
    assert command.index("--gpus-per-node=8") < command.index("--gpus-per-node=4")
    assert "--comment=two words" in command and f"--chdir={tmp_path}" in command
    assert command[-3:] == [str(SCRIPTS / "cluster.sbatch"), "tune", "spec.yaml"]


def test_one_node_needs_no_cluster_and_a_script_may_be_ones_own(tmp_path: Path) -> None:
    command = batch_command(["tune"], nodes=1, needs=Share(2, 0), working_dir=tmp_path)
    assert command[-2:] == [str(SCRIPTS / "single.sbatch"), "tune"]
    assert not any(word.startswith("--gpus") for word in command)
    own = tmp_path / "own.sbatch"
    own.touch()
    command = batch_command(["tune"], nodes=4, needs=Share(2, 0), working_dir=tmp_path, script=own)
    assert command[-2:] == [str(own), "tune"]


@pytest.mark.parametrize(
    ("changes", "line"), [({"nodes": 0}, "--nodes 0; allowed"), ({"script": "none.sbatch"}, "--script none.sbatch: no")]
)
def test_job_that_cannot_be_is_one_line(tmp_path: Path, changes: dict, line: str) -> None:
    with pytest.raises(ClusterError, match=rf"^{line}"):
        batch_command(["tune"], **{"nodes": 1, "needs": Share(2, 0), "working_dir": tmp_path, **changes})


@pytest.mark.parametrize("text", ["--comment='two", "a100"])
def test_options_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ClusterError, match=r"^--sbatch "):
        split_options(text)


def test_job_runs_with_this_interpreter_and_is_left_to_the_queue(told: Path) -> None:
    assert submit_batch(["sbatch", "one.sbatch", "tune"]) == Submitted("4711", "slurm", "pending")
    assert told.read_text().splitlines() == [sys.executable, "one.sbatch", "tune"]


@pytest.mark.parametrize(("status", "state"), [("0", "succeeded"), ("1", "failed")])
def test_job_that_sbatch_waits_for_has_ended(
    told: Path, monkeypatch: pytest.MonkeyPatch, status: str, state: str
) -> None:
    monkeypatch.setenv("STATUS", status)
    assert submit_batch(["sbatch", "--wait", "one.sbatch"]).state == state


def test_what_slurm_refuses_and_where_it_is_not_is_one_line(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSE", "Invalid partition name specified")
    with pytest.raises(ClusterError, match=r"^--slurm: sbatch takes no such job: .*Invalid partition name specified$"):
        submit_batch(["sbatch", "one.sbatch"])
    monkeypatch.setenv("PATH", str(told.parent / "nowhere"))
    with pytest.raises(ClusterError, match=r"^--slurm: there is no sbatch"):
        submit_batch(["sbatch", "one.sbatch"])


@pytest.mark.usefixtures("in_job")
def test_cluster_script_starts_a_head_and_workers_and_ends_as_the_command_does(told: Path) -> None:
    done = subprocess.run(
        [SCRIPTS / "cluster.sbatch", "tune", "a spec.yaml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3, done.stderr
    starts = {known["NODE"]: words for words, known in ran(told) if "start" in words}
    assert sorted(starts) == ["n1", "n2", "n3"]
    assert "--head" in starts["n1"] and {"--port=20007", "--node-ip-address=10.0.0.1"} <= set(starts["n1"])
    assert all("--address=10.0.0.1:20007" in starts[node] for node in ("n2", "n3"))
    assert all({"--block", "--num-cpus=4"} <= set(words) for words in starts.values())
    words, known = ran(told)[-1]
    assert words == ["-m", "raylora", "tune", "a spec.yaml"]
    assert known["RAY_ADDRESS"] == "10.0.0.1:20007"
    assert {known["RAY_AUTH_TOKEN"] for words, known in ran(told) if words[0] == "-m"} == {"secret"}


@pytest.mark.usefixtures("in_job")
@pytest.mark.parametrize("script", ["single.sbatch", "cluster.sbatch"])
def test_signal_before_the_time_is_over_is_ctrl_c_for_the_command(told: Path, tmp_path: Path, script: str) -> None:
    there = tmp_path / "there"
    # As Slurm starts it, whatever the signal does to this process.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    job = subprocess.Popen([SCRIPTS / script, "wait", there], preexec_fn=heed)
    try:
        while not there.exists():
            assert job.poll() is None
            time.sleep(0.02)
        job.send_signal(signal.SIGINT)
        assert job.wait(30) == 130
    finally:
        job.kill()


@pytest.mark.usefixtures("in_job")
def test_single_script_gives_ray_the_jobs_cores_only(told: Path) -> None:
    assert subprocess.run([SCRIPTS / "single.sbatch", "resume", "run"], timeout=60).returncode == 3
    ((words, known),) = ran(told)
    assert words == ["-m", "raylora", "resume", "run"]
    assert known["RAY_OVERRIDE_RESOURCES"] == '{"CPU": 4}'


@pytest.mark.parametrize("script", ["single.sbatch", "cluster.sbatch"])
def test_script_that_slurm_does_not_run_says_so(told: Path, script: str) -> None:
    done = subprocess.run([SCRIPTS / script, "tune"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "submit this with sbatch" in done.stderr and not told.exists()
