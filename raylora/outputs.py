"""Where commands write their files: checked before the work, so that nothing is measured in vain."""

from __future__ import annotations

import tempfile
from pathlib import Path

from raylora.errors import UserError


def output_stem(to: str | Path, option: str = "--to") -> Path:
    """The stem of the files to write, in a folder that is there and can be written to.

    Raises:
        UserError: there can be no such folder, or nothing can be written in it.
    """
    stem = Path(to).expanduser()
    writable_folder(stem.parent, f"{option} {to}")
    return stem


def writable_folder(folder: Path, told: str) -> None:
    """Makes a folder. Raises UserError, which begins with `told`, where it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{told}: {error.strerror or error}; name a place that can be written to") from None
