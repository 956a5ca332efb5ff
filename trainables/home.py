"""The folder below which what was computed or fetched once is kept."""

from __future__ import annotations

import os
from pathlib import Path

# A run in a store has a folder here; another one on nodes that only train for it.
_STORED, _LENT = "storage", "lent"


def home() -> Path:
    """`$RAYLORA_HOME`, else `~/.cache/raylora`, on the node that asks."""
    told = os.environ.get("RAYLORA_HOME")
    return Path(told).expanduser() if told else Path.home() / ".cache" / "raylora"


def stored_folder(uri: str) -> Path:
    """The working folder of a run in a store, `uri`, for who runs it or looks at it."""
    return home() / _STORED / uri.replace("://", "/")


def lent_folder(uri: str) -> Path:
    """The working folder of such a run on a node that trains for it."""
    return home() / _LENT / uri.replace("://", "/")
