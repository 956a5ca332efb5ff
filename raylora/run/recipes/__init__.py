"""The found recipe for other toolkits, and other toolkits' recipes read.

A toolkit is one file here, called as the toolkit, or a class of another package (entry points `raylora.run.recipes`).
`export.export_recipe` writes a folder, `reading.recipe_from` reads the configurations of others.
"""

from __future__ import annotations

from raylora.run.recipes.core.base import Toolkit
from trainables.registry import Registry

__all__ = ["TOOLKITS", "Toolkit"]

TOOLKITS: Registry[Toolkit] = Registry(
    __name__, group="raylora.run.recipes", base="raylora.run.recipes.core.base:Toolkit", apart=("export", "reading")
)
