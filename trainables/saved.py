"""A trial's saved state on disk: a folder that is whole whenever its writer is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

CHECKPOINTS = "checkpoints"
"""Folder of a run in which the states of its trials lie, by key."""


class NotSaved(OSError):
    """A state could not be written; the one before it is there as it was."""


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of `folder` in the end.

    Raises:
        NotSaved: as on a disk without room; nothing of the fresh folder is left.
    """
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        before = _before(folder)
        if folder.exists():
            shutil.rmtree(before, ignore_errors=True)
            os.replace(folder, before)
        os.replace(fresh, folder)
        shutil.rmtree(before, ignore_errors=True)
    except (OSError, SafetensorError, RuntimeError) as error:  # the last is what torch.save says of a full disk
        shutil.rmtree(fresh, ignore_errors=True)
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise NotSaved(f"{folder}: not saved: {told}") from error


def saved(folder: str | Path) -> Path | None:
    """Where the state that `TrialRun.save` wrote to `folder` lies; None where there is none."""
    places = (Path(folder), _before(Path(folder)))
    return next((place for place in places if (place / "position.json").exists()), None)


def _before(folder: Path) -> Path:
    """Where the state before lies while a new one takes its place."""
    return folder.with_name(f".{folder.name}.before")
