"""What to try next: searchers over a finite space of LoRA hyperparameters, for Ray Tune.

The classes are imported on first use, so that `import searchers` stays quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import SpaceSearcher

# One line per searcher: name -> (module, class).
_WHERE = {
    "gp": ("gp", "GPSearch"),
    "grid": ("grid", "GridSearch"),
    "language": ("language", "LanguageBOSearch"),
    "latent": ("latent", "LatentBOSearch"),
    "nomad": ("nomad", "NomadSearch"),
    "optuna_gp": ("optuna_gp", "OptunaGPSearch"),
    "random": ("random", "RandomSearch"),
    "tpe": ("tpe", "TPESearch"),
}


class _Registry(Mapping[str, "type[SpaceSearcher]"]):
    """Searcher classes by name, imported when looked up."""

    def __getitem__(self, name: str) -> type[SpaceSearcher]:
        module, cls = _WHERE[name]
        return getattr(importlib.import_module(f".{module}", __name__), cls)

    def __iter__(self) -> Iterator[str]:
        return iter(_WHERE)

    def __len__(self) -> int:
        return len(_WHERE)


SEARCHERS: Mapping[str, type[SpaceSearcher]] = _Registry()


def available() -> list[str]:
    """Names of the searchers."""
    return sorted(_WHERE)


def make_searcher(name: str, **options: Any) -> SpaceSearcher:
    """A searcher by name.

    Raises:
        ValueError: unknown name, or an option that the searcher does not have.
    """
    if name not in _WHERE:
        raise ValueError(f"searcher: {name!r} is unknown; choose one of {', '.join(available())}")
    try:
        return SEARCHERS[name](**options)
    except TypeError as error:
        raise ValueError(f"searcher {name}: {error}") from error


def __getattr__(name: str) -> Any:
    for module, cls in _WHERE.values():
        if name == cls:
            return getattr(importlib.import_module(f".{module}", __name__), cls)
    if name in ("Space", "Knob", "default_space"):
        return getattr(importlib.import_module(".space", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
