"""The folder below which what was computed or fetched once is kept."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`$RAYLORA_HOME`, else `~/.cache/raylora`, on the node that asks."""
    told = os.environ.get("RAYLORA_HOME")
    return Path(told).expanduser() if told else Path.home() / ".cache" / "raylora"
