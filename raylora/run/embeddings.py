"""What the searcher's model told a run's trials apart by, kept for the report's map."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.journal import Journal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from searchers.base import SpaceSearcher

EMBEDDINGS = "embeddings.npz"
# Principal components that are kept of each: what a map is made from, at a hundredth of the size.
_WIDTH = 50


def keep_embeddings(folder: Path, searcher: SpaceSearcher, say: Callable[[str], None]) -> None:
    """Write the searcher's embeddings of the run's trials, where it has any; no failure of it is one of the run's."""
    space = searcher.space
    if space is None:
        return
    started = {key: begun.config for key, begun in Journal(folder).started().items() if begun.config in space}
    try:
        found = searcher.embeddings([space.encode(config) for config in started.values()])
        if found:
            _write(folder / EMBEDDINGS, list(started), found)
    except Exception as error:  # of a model, a device, a full disk
        say(f"the searcher's embeddings are not kept: {type(error).__name__}: {error}")


def _write(file: Path, keys: Sequence[str], found: Mapping[str, NDArray[np.float32]]) -> None:
    fresh = file.with_name(f".fresh.{file.name}")
    kept: dict[str, Any] = {name: _main_components(features) for name, features in found.items()}
    np.savez_compressed(fresh, keys=np.array(keys), **kept)
    os.replace(fresh, file)


def _main_components(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(n, d)` -> `(n, min(n, d, 50))`: the same distances, but for what the last components add."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    return (left * size)[:, :_WIDTH].astype(np.float32)


def read_embeddings(folder: Path) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Name -> key of a trial -> its features, `(d,)`; nothing where there are none, or the file is torn."""
    try:
        with np.load(folder / EMBEDDINGS, allow_pickle=False) as file:
            keys = [str(key) for key in file["keys"]]
            return {name: dict(zip(keys, file[name], strict=True)) for name in file.files if name != "keys"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
