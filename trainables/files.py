"""Text files that others read while they are written."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(file: Path, text: str) -> None:
    """Write a file in one step: who reads it finds the former text or the new one, also after a kill."""
    fresh = file.with_name(f".{file.name}.fresh")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, file)
