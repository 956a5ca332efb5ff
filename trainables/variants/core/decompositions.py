"""SVD and QR of base weights, computed once per weight and kept on disk.

Files are `$RAYLORA_HOME/decompositions` (or `~/.cache/raylora/decompositions`) `/<key>.safetensors`, where the
key is a hash of the weight's own bytes, its type, shape and device type, of the kind of decomposition and of
the rank class. A wrong file is therefore impossible to get by a changed model, and a broken one is made anew.

Ranks come in classes (powers of two from 8), so that the ranks of a search share files. A result is the same
whether it was computed now or read: both go through one contiguous fp32 copy, and the randomised SVD draws
from its own seed. `RAYLORA_DECOMPOSITIONS=off` computes every time and leaves the disk alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from trainables.home import home
from trainables.variants.core.snapshot import raw_bytes, seeded

SWITCH = "RAYLORA_DECOMPOSITIONS"
SMALLEST = 1 << 16  # entries: below, decomposing is as quick as reading

_log = logging.getLogger(__name__)


def top_svd(weight: Tensor, count: int, niter: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """The largest `count` singular triplets of W `(m, n)`: U `(m, count)`, S `(count,)`, V `(n, count)`; fp32.

    Randomised (Halko et al., arXiv 0909.4061, algorithm 4.4) with `niter` subspace iterations over as many
    columns as the rank class has.
    """
    size = _rank_class(count, weight)

    def compute(matrix: Tensor) -> dict[str, Tensor]:
        with seeded(0):
            u, s, v = torch.svd_lowrank(matrix, q=size, niter=niter)
        return {"u": u, "s": s, "v": v}

    parts = decompose(weight, f"top-{size}-niter-{niter}", compute)
    return parts["u"][:, :count], parts["s"][:count], parts["v"][:, :count]


def bottom_svd(weight: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest `count` singular triplets of W `(m, n)`, largest of them first; shapes as `top_svd`.

    Exact: a randomised SVD finds no small ones. The whole SVD is computed, only the rank class is kept.
    """
    size = _rank_class(count, weight)

    def compute(matrix: Tensor) -> dict[str, Tensor]:
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        return {"u": u[:, -size:], "s": s[-size:], "v": vt[-size:].T}

    parts = decompose(weight, f"bottom-{size}", compute)
    return parts["u"][:, -count:], parts["s"][-count:], parts["v"][:, -count:]


def window_svd(weight: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Triplets of W `(m, n)`, k = min(m, n), in three windows: the first ones, those from k // 2, the last ones.

    Returns:
        Indices `(c,)` int64 of the triplets, in order (the windows may overlap), U `(m, c)`, all singular values
        `(k,)`, and V `(n, c)`; fp32. The windows are as wide as the rank class of `count`, the SVD is exact.
    """
    size, k = _rank_class(count, weight), min(weight.shape)
    starts = (0, min(k // 2, k - size), k - size)
    indices = torch.tensor(sorted({j for start in starts for j in range(start, start + size)}))

    def compute(matrix: Tensor) -> dict[str, Tensor]:
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        return {"u": u[:, indices], "s": s, "v": vt[indices].T}

    parts = decompose(weight, f"windows-{size}", compute)
    return indices, parts["u"], parts["s"], parts["v"]


def first_qr(weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` columns of Q `(m, count)` and rows of R `(count, n)` of W = Q R; fp32.

    The first columns of Q depend on the first columns of W only, and R[:k] = Q[:, :k]^T W: the rest of the
    matrix is never decomposed.
    """
    size = _rank_class(count, weight)

    def compute(matrix: Tensor) -> dict[str, Tensor]:
        q, _ = torch.linalg.qr(matrix[:, :size])
        return {"q": q, "r": q.T @ matrix}

    parts = decompose(weight, f"qr-{size}", compute)
    return parts["q"][:, :count], parts["r"][:count]


def decompose(weight: Tensor, kind: str, compute: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    """`compute(W in fp32)`, or what an earlier call with the same W and kind gave, on W's device.

    Args:
        weight: W `(m, n)` in any floating-point type; a transposed view is fine.
        kind: all that the result depends on besides W.
    """
    if weight.numel() < SMALLEST:
        return _fixed(compute(weight.float()), weight.device)
    return kept(lambda: _key(weight, kind), lambda: compute(weight.float()), weight.device)


def kept(key: Callable[[], str], compute: Callable[[], dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """`compute()`, or what an earlier call with the same key gave, as fp32 on `device`.

    Where the cache cannot be read or written, the result is computed and a warning is logged.

    Args:
        key: makes a hash, in hexadecimal, of all that the result depends on; not called where nothing is kept.
    """
    folder = cache_folder()
    if folder is None:
        return _fixed(compute(), device)
    path = folder / f"{key()}.safetensors"
    found = _read(path, device)
    if found is not None:
        return found
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A lock per first letter of the key: hosts that start together share the work, and locks stay few.
        with FileLock(folder / f".{path.name[0]}.lock"):
            found = _read(path, device)
            if found is None:
                found = _fixed(compute(), device)
                _write(path, found)
        return found
    except OSError as error:
        _log.warning("decompositions are not kept: %s; set RAYLORA_HOME to a writable folder", error)
        return found if found is not None else _fixed(compute(), device)


def cache_folder() -> Path | None:
    """Where decompositions are kept; None where `RAYLORA_DECOMPOSITIONS` is `off`."""
    if os.environ.get(SWITCH, "").lower() in ("off", "0", "false"):
        return None
    return home() / "decompositions"


def _rank_class(count: int, weight: Tensor) -> int:
    return min(max(8, 1 << (count - 1).bit_length()), *weight.shape)


def _key(weight: Tensor, kind: str) -> str:
    about = f"{kind} {weight.dtype} {tuple(weight.shape)} {weight.device.type};"
    digest = hashlib.sha256(about.encode())
    digest.update(raw_bytes(weight))
    return digest.hexdigest()[:40]


def _fixed(parts: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Contiguous fp32 copies: strides and alignment would change the last bits of what is computed from them."""
    form = {"dtype": torch.float32, "memory_format": torch.contiguous_format, "copy": True}
    return {name: part.detach().to(device, **form) for name, part in parts.items()}


def _read(path: Path, device: torch.device) -> dict[str, Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return _fixed(load_file(path), device)
    except (OSError, SafetensorError):
        return None


def _write(path: Path, parts: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    fresh = path.with_name(f".{uuid.uuid4().hex}")
    try:
        save_file({name: part.cpu() for name, part in parts.items()}, fresh)
        os.replace(fresh, path)
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
