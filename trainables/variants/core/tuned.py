"""The folder of a recipe that is no adapter: whole matrices, and a file that says so. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

TUNED = "tuned_weights.safetensors"
ABOUT = "tuned_weights.json"


def tuned_by(folder: str | Path) -> str | None:
    """The variant that left whole matrices in `folder`; None where it holds none."""
    about = Path(folder) / ABOUT
    return str(json.loads(about.read_text())["variant"]) if about.is_file() else None
