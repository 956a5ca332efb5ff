"""What to try next: searchers over a finite space of LoRA hyperparameters, for Ray Tune.

A searcher is one file here, called as the searcher, or a class of another package (entry points `raylora.searchers`).
The classes are imported on first use, so that `import searchers` stays quick.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import OptionError
from .registry import Registry

if TYPE_CHECKING:
    from .base import SpaceSearcher

SEARCHERS: Registry[SpaceSearcher] = Registry(
    __name__,
    group="raylora.searchers",
    base=f"{__name__}.base:SpaceSearcher",
    apart=("base", "errors", "knob", "optuna_sampler", "registry", "space", "testing"),
)


def available() -> list[str]:
    """Names of the searchers."""
    return SEARCHERS.names()


def make_searcher(name: str, **options: Any) -> SpaceSearcher:
    """A searcher by name.

    Raises:
        ValueError: unknown name, a plug-in that cannot be used, or an option that the searcher does not have.
    """
    if name not in SEARCHERS:
        raise OptionError(
            "searcher", f"{name!r} is unknown; choose one of {', '.join(available())}", value=name, allowed=available()
        )
    cls = SEARCHERS[name]
    try:
        return cls(**options)
    except TypeError as error:
        raise ValueError(f"searcher {name}: {error}") from error


def belief_of(name: str) -> str:
    """The `belief` of a searcher, empty for one without; of a built-in one, without importing it and so Ray.

    Raises:
        ValueError: unknown name, or a plug-in that cannot be used.
    """
    if name not in SEARCHERS or SEARCHERS.origin(name) is not None:
        return SEARCHERS[name].belief
    tree = ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "belief" and node.value is not None:
            return str(ast.literal_eval(node.value))
    return ""


def __getattr__(name: str) -> Any:
    if name.endswith("Search"):
        for builtin in SEARCHERS:
            if SEARCHERS.origin(builtin) is None and SEARCHERS[builtin].__name__ == name:
                return SEARCHERS[builtin]
    if name in ("Space", "Knob", "paper_space"):
        return getattr(importlib.import_module(".space", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
