"""The recipe to begin with, from Python. Imports neither torch nor ray."""

from __future__ import annotations

from raylora.run.recommend import Recommendation, recommend

__all__ = ["Recommendation", "recommend"]
