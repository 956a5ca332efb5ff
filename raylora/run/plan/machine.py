"""What this machine has, what of it works, and the remedy for what does not: the checks of `raylora doctor`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raylora import cluster, models
from raylora.tasks.sandbox import available as sandboxes
from trainables.home import home

GIB = 2**30
# Free space below which a run is likely to fail: a model and its checkpoints.
DISK_GIB, SHARED_GIB, MEMORY_GIB = 5.0, 0.5, 2.0
OPTIONAL = {
    "deepspeed": ("resources.strategy: deepspeed", "pip install 'raylora[deepspeed]'"),
    "bitsandbytes": ("quantization: nf4 or int8", "pip install 'raylora[quantization]'"),
    "vllm": ("serving a tuned model", "pip install -c constraints-vllm.txt 'raylora[vllm]'"),
    "matplotlib": ("plots of reports", "pip install 'raylora[report]'"),
    "jinja2": ("reports", "pip install 'raylora[report]'"),
    "reasoning_gym": ("tasks reasoning_gym/...", "pip install 'raylora[gym]'"),
    "sacrebleu": ("metrics bleu and chrf", "pip install 'raylora[metrics]'"),
    "rouge_score": ("metric rouge", "pip install 'raylora[metrics]'"),
    "math_verify": ("metric math", "pip install 'raylora[metrics]'"),
    "wasmtime": ("the strict sandbox", "pip install 'raylora[sandbox-wasm]'"),
}

State = Literal["ok", "optional", "warning", "broken"]


@dataclass(frozen=True)
class Check:
    """A thing that a run needs, or could use: what was found, and what to do where it does not work."""

    name: str
    state: State
    found: str
    remedy: str = ""


def gpu_names() -> list[str]:
    """The NVIDIA GPUs that this process may use, by name; none where there is no driver."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return []
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    names = [line.strip() for line in told.splitlines() if line.strip()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names if visible is None else names[: len(visible.split(","))]


def check_machine(storage: str = "runs") -> list[Check]:
    """Every check, one after the other; starts a local Ray for a moment.

    Args:
        storage: folder that runs would be written to.
    """
    checks: list[Callable[[], Check]] = [
        _python,
        _processors,
        _memory,
        _accelerators,
        lambda: _disk("disk for runs", Path(storage), "free some, or set storage_path elsewhere"),
        lambda: _disk("disk for models", home(), "free some, or set RAYLORA_HOME elsewhere"),
        lambda: _disk("disk for Ray", Path(tempfile.gettempdir()), "free some, or set RAY_TMPDIR elsewhere"),
        _shared_memory,
        _ray,
        _model_cache,
        _sandbox,
    ]
    return [_run(check) for check in checks] + [_optional(name) for name in OPTIONAL]


def works(checks: list[Check]) -> bool:
    """Whether nothing that a run needs is broken."""
    return all(check.state != "broken" for check in checks)


def _run(check: Callable[[], Check]) -> Check:
    """The check; one that fails itself is a thing that does not work."""
    try:
        return check()
    except Exception as error:
        name = getattr(check, "__name__", "check").strip("_<>").replace("_", " ")
        return Check(name, "broken", f"{type(error).__name__}: {error}", "see the message")


def _python() -> Check:
    from raylora import __version__

    version = ".".join(map(str, sys.version_info[:3]))
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "peft"))
    return Check("software", "ok", f"raylora {__version__}, Python {version}, {packages}")


def _processors() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    busy = load > 1.5 * usable
    told = f"{usable} cores, load {load:.1f}"
    remedy = "others work on this machine: runs take longer, and plans follow" if busy else ""
    return Check("processors", "warning" if busy else "ok", told, remedy)


def _memory() -> Check:
    import torch

    from trainables.memory import available_bytes

    free = available_bytes(torch.device("cpu")) / GIB
    state: State = "ok" if free >= MEMORY_GIB else "warning"
    return Check("memory", state, f"{free:.1f} GiB free", "" if state == "ok" else "end other programs")


def _accelerators() -> Check:
    import torch

    names = gpu_names()
    if torch.cuda.is_available():
        torch.ones(8, device="cuda").sum().item()
        seen = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Check("accelerators", "ok", ", ".join(seen))
    if names:
        built = f"torch {torch.__version__} does not see them"
        remedy = "install a torch for CUDA (https://pytorch.org/get-started), or a newer driver"
        return Check("accelerators", "broken", f"{', '.join(names)}, but {built}", remedy)
    from trainables.session import native_bf16

    kind = "bfloat16 (AMX)" if native_bf16() else "float32"
    return Check("accelerators", "ok", f"no GPU: runs use the processors, in {kind}")


def _disk(name: str, folder: Path, remedy: str) -> Check:
    place = folder.expanduser().absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / GIB
    told = f"{free:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Check(name, "broken", f"{place} cannot be written", remedy)
    state: State = "ok" if free >= DISK_GIB else "warning"
    return Check(name, state, told, "" if state == "ok" else remedy)


def _shared_memory() -> Check:
    place = Path("/dev/shm")
    if not place.is_dir():
        return Check("shared memory", "warning", "no /dev/shm: Ray keeps objects on the disk", "mount a tmpfs there")
    free = shutil.disk_usage(place).free / GIB
    if free < SHARED_GIB:
        remedy = "in a container: docker run --shm-size=4g"
        return Check("shared memory", "warning", f"{free:.2f} GiB free at /dev/shm", remedy)
    return Check("shared memory", "ok", f"{free:.1f} GiB free at /dev/shm")


def _ray() -> Check:
    started = time.monotonic()
    where = os.environ.get("RAY_ADDRESS") or "local"
    try:
        with cluster.connected():
            import ray

            answer = ray.get(ray.remote(_one).options(num_cpus=0).remote(), timeout=120)
            nodes = len(ray.nodes())
    except Exception as error:
        remedy = "unset RAY_ADDRESS, or start the cluster that it names" if where != "local" else "see /tmp/ray"
        return Check("Ray", "broken", f"{where}: {str(error).strip().splitlines()[0]}", remedy)
    told = f"{ray.__version__}, {where}, {nodes} node(s), a task in {time.monotonic() - started:.0f} s"
    return Check("Ray", "ok" if answer == 1 else "broken", told)


def _one() -> int:
    return 1


def _model_cache() -> Check:
    there = [str(row["alias"]) for row in models.list_models() if row["path"]]
    told = f"{models.cache_folder()}: {', '.join(there) or 'no bundled model yet'}"
    remedy = "" if there else "raylora models pull smollm2-135m"
    return Check("model cache", "ok" if there else "optional", told, remedy)


def _sandbox() -> Check:
    found = sandboxes()
    if found.kind is not None:
        return Check("sandbox", "ok", f"{found.kind} (for tasks and metrics that run a model's code)")
    why = "; ".join(f"{kind}: {reason}" for kind, reason in found.missing.items())
    return Check("sandbox", "optional", "a model's code cannot be run here", why)


def _optional(name: str) -> Check:
    what, remedy = OPTIONAL[name]
    if importlib.util.find_spec(name) is None:
        return Check(name, "optional", f"not installed: {what}", remedy)
    return Check(name, "ok", what)
