"""Training scripts that are copied into an exported folder as they are."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def copy_script(name: str, folder: Path) -> None:
    """One of this package's scripts as `train.py`."""
    (folder / "train.py").write_text((files(__name__) / f"{name}.py").read_text(encoding="utf-8"), encoding="utf-8")
