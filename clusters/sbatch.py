"""Runs a spec as a batch job of Slurm: `raylora submit SPEC.yaml --slurm`.

`sbatch` is given one of the scripts in `clusters/slurm/`: `single.sbatch` for one node, `cluster.sbatch`, which starts
a Ray head and workers, for several. They run `raylora tune` in the environment that they are submitted from.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusters.errors import ClusterError
from clusters.submit import Submitted

SCRIPTS = Path(__file__).resolve().parent / "slurm"
ADDRESS = "slurm"
_WAITS = ("--wait", "-W")


@dataclass(frozen=True)
class Share:
    """What a job asks of each of its nodes: CPUs and GPUs."""

    cpus: int
    gpus: int


def share(
    hosts: int, *, nodes: int = 1, workers: int = 1, cpus_per_host: int | None = None, gpus_per_host: float = 0.0
) -> Share:
    """What each of `nodes` needs for its part of the hosts and workers of a spec's `resources`.

    Args:
        hosts: trials at a time. workers: processes per trial.
        cpus_per_host: CPUs of each process; None for one.
        gpus_per_host: GPUs of each process; below 1 a share of one.
    """
    places = math.ceil(hosts * workers / nodes)
    # No share of a process lies on two GPUs.
    per_gpu = math.floor(1 / gpus_per_host + 1e-9) if 0 < gpus_per_host < 1 else 1
    gpus = math.ceil(places / per_gpu) * math.ceil(gpus_per_host)
    # One more for the driver and the searcher.
    return Share(places * (cpus_per_host or 1) + 1, gpus)


def batch_command(
    arguments: Iterable[str],
    *,
    nodes: int,
    needs: Share,
    working_dir: str | Path,
    options: Sequence[str] = (),
    script: str | Path | None = None,
) -> list[str]:
    """The command that submits a job.

    Args:
        arguments: of raylora, such as `tune SPEC.yaml`.
        nodes: of the job.
        needs: of each node.
        working_dir: where the command runs, and where the job's output goes.
        options: of sbatch's own; they come last, and so win.
        script: instead of the one in `clusters/slurm/`.

    Raises:
        ClusterError: one line, for fewer nodes than one or a script that is not there.
    """
    if nodes < 1:
        raise ClusterError(f"--nodes {nodes}; allowed: at least 1", field="--nodes", value=nodes)
    file = Path(script).expanduser() if script else SCRIPTS / ("single.sbatch" if nodes == 1 else "cluster.sbatch")
    if not file.is_file():
        raise ClusterError(
            f'--script {script}: no such file; allowed: a batch script that runs `python -m raylora "$@"`',
            field="--script",
            value=str(script),
        )
    asked = [f"--nodes={nodes}", f"--cpus-per-task={needs.cpus}"]
    if needs.gpus:
        asked.append(f"--gpus-per-node={needs.gpus}")
    asked += [f"--chdir={Path(working_dir).expanduser().resolve()}", "--export=ALL", *options]
    return ["sbatch", "--parsable", *asked, str(file.resolve()), *arguments]


def split_options(text: str) -> list[str]:
    """sbatch's own options as a user quotes them: `--partition=a100 --time=12:00:00`.

    Raises:
        ClusterError: one line, for a quote that does not end, or a word that is no option.
    """
    try:
        options = shlex.split(text)
    except ValueError as error:
        raise ClusterError(f"--sbatch {text!r}: {error}", field="--sbatch", value=text) from None
    if options and not options[0].startswith("-"):
        raise ClusterError(
            f"--sbatch {text!r}: not sbatch's options; allowed: such as --sbatch='--partition=a100 --time=12:00:00'",
            field="--sbatch",
            value=text,
        )
    return options


def submit_batch(command: Sequence[str]) -> Submitted:
    """Runs what `batch_command` gave.

    Returns:
        The job: pending, for Slurm starts it in its own time; with sbatch's `--wait` among the options as it ended.

    Raises:
        ClusterError: one line: there is no sbatch, or what sbatch says of a job that it does not take.
    """
    environment = {**os.environ, "RAYLORA_PYTHON": sys.executable}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ClusterError(
            "--slurm: there is no sbatch on this machine; run this where jobs are submitted, or give --address",
            field="--slurm",
        ) from None
    # With --parsable: the job's id and, where there are several, the cluster's name.
    job = done.stdout.strip().split(";")[0]
    if not job:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        told = lines[-1].removeprefix("sbatch: ").removeprefix("error: ") if lines else f"status {done.returncode}"
        raise ClusterError(f"--slurm: sbatch takes no such job: {told}", field="--slurm")
    if not any(option in _WAITS for option in command):
        return Submitted(job, ADDRESS, "pending")
    return Submitted(job, ADDRESS, "failed" if done.returncode else "succeeded")
