"""LoRA variants: one file each, one registry, one conformance suite (`trainables.variants.testing`).

A new variant is one file with a subclass of `Variant`, called as the variant, or a class of another package (entry
points `raylora.variants`). Listing the names imports neither torch nor PEFT; asking for a class does.

    >>> from trainables.variants import available, get_variant
    >>> available()[:2]
    ['adalora', 'corda']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainables.registry import Registry

if TYPE_CHECKING:
    from trainables.variants.core.base import AdapterConfig, Variant
    from trainables.variants.core.plain import PlainLora

__all__ = ["VARIANTS", "AdapterConfig", "PlainLora", "Variant", "available", "describe", "get_variant"]

_CORE = {"AdapterConfig": "base", "PlainLora": "plain", "Variant": "base"}

VARIANTS: Registry[Variant] = Registry(
    __name__, group="raylora.variants", base=f"{__name__}.core.base:Variant", apart=("testing",)
)


def available() -> list[str]:
    """Names of all variants, sorted."""
    return VARIANTS.names()


def get_variant(name: str) -> type[Variant]:
    """The class of a variant.

    Raises:
        ValueError: no variant has that name (the message lists those there are), or it is a plug-in that cannot be
            used.
    """
    if name not in VARIANTS:
        raise ValueError(f"variant {name!r} is unknown: use one of {', '.join(available())}")
    return VARIANTS[name]


def describe() -> list[dict[str, Any]]:
    """One row per variant: name, summary, paper, parameters, exports_lora, saves, runs_on, options."""
    fields = ("name", "summary", "paper", "parameters", "exports_lora", "saves")
    return [
        {field: getattr(cls, field) for field in fields}
        | {"runs_on": sorted(cls.runs_on), "options": dict(cls.options)}
        for cls in VARIANTS.classes().values()
    ]


def __getattr__(name: str) -> Any:
    if name in _CORE:
        return getattr(import_module(f"{__name__}.core.{_CORE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
