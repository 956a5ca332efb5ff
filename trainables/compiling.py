"""torch.compile for training: a model's blocks are compiled, not the model as a whole.

Blocks are alike, so that one compilation serves all of them. Another trial's adapter is another program: what was
compiled for one trial is forgotten with it, and found again in inductor's cache on disk where the kernels are the same.
Evaluation, which has keys and values of any length, stays as it is.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn


def why_no_compiler(device: torch.device) -> str | None:
    """What compiling for a device lacks here, in words; None where it can."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "it needs triton, which comes with torch for CUDA"
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return "it needs a C++ compiler; install g++"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "it needs Python's headers; install python3-dev"
    return None


def check_compiler(device: torch.device) -> None:
    """Raises ValueError, one line, where nothing can be compiled for the device."""
    why = why_no_compiler(device)
    if why is not None:
        raise ValueError(f"train.compile = true: {why}, or set it to false")


def compile_blocks(module: nn.Module, backend: str = "inductor") -> None:
    """Has each block compiled at its first pass in training; `Snapshot.restore` takes it back.

    Batches of several lengths share a program. Dropout draws what it draws without.
    """
    options = {"fallback_random": True} if backend == "inductor" else None
    forget_compiled()
    for block in blocks(module):
        block.compile(backend=backend, dynamic=True, options=options)


def forget_compiled() -> None:
    """Frees the programs of this process."""
    torch.compiler.reset()


def as_written() -> AbstractContextManager[object]:
    """Within, blocks run as they are written, compiled or not."""
    return torch.compiler.set_stance("force_eager")


def blocks(module: nn.Module) -> list[nn.Module]:
    """The parts of the outermost lists of layers: a transformer's blocks."""
    lists = {name: part for name, part in module.named_modules() if isinstance(part, nn.ModuleList)}
    outermost = [part for name, part in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    return [block for part in outermost for block in part]
