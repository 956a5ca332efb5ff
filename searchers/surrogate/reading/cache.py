"""Tensors that never change, kept on disk between processes.

A file holds what belongs to one key: a hash over everything that the tensors depend on (the model's bytes, the prompts'
tokens, the type of number). Another model, template or space is another key, so nothing is ever invalid. The least
recently used files go when the folder outgrows its limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor


def default_folder() -> Path:
    """`$RAYLORA_HOME/embeddings`, else `~/.cache/raylora/embeddings`."""
    home = os.environ.get("RAYLORA_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".cache" / "raylora") / "embeddings"


def model_bytes(folder: str | Path) -> str:
    """SHA-256 over a model's weight files, remembered while they keep size and modification time."""
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in (".safetensors", ".bin"))
    return _digest(tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


@lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def key(parts: Iterable[object]) -> str:
    """A hash of the parts' texts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str(part).encode() + b"\0")
    return digest.hexdigest()[:32]


class DiskCache:
    """Named tensors of one key. `put` collects, `commit` writes them in one step.

    Args:
        name: the key. folder: see `default_folder`. limit: most bytes in the folder; a larger set is not kept.
    """

    def __init__(self, name: str, folder: str | Path | None = None, limit: int = 8 << 30) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        self.path = self.folder / f"{name}.safetensors"
        self.limit = limit
        self._fresh: dict[str, Tensor] = {}
        self._read = False

    def get(self, name: str, device: torch.device | str = "cpu", shape: tuple[int, ...] | None = None) -> Tensor | None:
        """A stored tensor, or None: not there, of another shape, or unreadable."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt", device=str(device)) as file:
                tensor = file.get_tensor(name)
        except (OSError, SafetensorError, FileNotFoundError):
            return None
        if not self._read:
            self._read = True
            with contextlib.suppress(OSError):
                os.utime(self.path)
        return tensor if shape is None or tuple(tensor.shape) == tuple(shape) else None

    def put(self, name: str, tensor: Tensor) -> None:
        """Keeps a tensor for `commit`."""
        self._fresh[name] = tensor

    def commit(self) -> None:
        """Writes what was put, beside what is there; a full or read-only disk costs the cache, not the search."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save_file

        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, {}
        with contextlib.suppress(OSError, SafetensorError):
            self.folder.mkdir(parents=True, exist_ok=True)
            old: dict[str, Tensor] = {}
            with contextlib.suppress(OSError, SafetensorError):  # a broken file is replaced
                old = load_file(self.path)
            tensors = {k: v.detach().cpu().contiguous() for k, v in {**old, **fresh}.items()}
            size = sum(t.nbytes for t in tensors.values())
            if size > self.limit or size > _free_bytes(self.folder) // 2:
                return
            self._make_room(size)
            part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            try:
                save_file(tensors, part)
                os.replace(part, self.path)
            finally:
                part.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        others = (p for p in self.folder.glob("*.safetensors") if p != self.path)
        files = sorted(others, key=lambda p: p.stat().st_mtime)
        total = size + sum(p.stat().st_size for p in files)
        for path in files:
            if total <= self.limit:
                return
            total -= path.stat().st_size
            path.unlink(missing_ok=True)


def _free_bytes(folder: Path) -> int:
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize
