"""Where a run is followed beside its own folder.

A tracker is one file here, called as the tracker, or a class of another package (entry points `raylora.trackers`).
"""

from __future__ import annotations

from raylora.run.trackers.base import Tracker
from trainables.registry import Registry

__all__ = ["TRACKERS", "Tracker"]

TRACKERS: Registry[Tracker] = Registry(
    __name__, group="raylora.trackers", base=f"{__name__}.base:Tracker", apart=("base",)
)
