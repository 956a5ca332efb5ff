"""Where raylora runs: cluster files, job files, DeepSpeed configurations, submission, shared storage.

    aws.yaml, gcp.yaml   Ray cluster launcher: one CPU head, nodes of eight A100
    local.yaml           the same on machines that ssh reaches
    kuberay/             the same as a KubeRay RayJob and RayCluster, and their image
    slurm/*.sbatch       batch scripts for Slurm: one node; a Ray head and workers on several
    deepspeed/*.json     configurations for `resources.strategy: deepspeed`
    submit.py            `raylora submit --address`
    sbatch.py            `raylora submit --slurm`
    nodes.py             are all nodes of a job there?
    places.py            how many hosts do the nodes have room for?
    storage.py           is the storage shared by all nodes?

Nothing here imports torch.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def deepspeed_config(name: str) -> Path:
    """Path of a DeepSpeed JSON file: a bundled name (`zero2`) or the path of one's own.

    Raises:
        ValueError: neither a bundled name nor a file.
    """
    bundled = sorted(path.stem for path in (FOLDER / "deepspeed").glob("*.json"))
    if name in bundled:
        return FOLDER / "deepspeed" / f"{name}.json"
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"no such file; allowed: {', '.join(bundled)} or the path of a JSON file")
    return path.resolve()
