"""LoRA variants: one file each, one registry, one conformance suite (`trainables.variants.testing`).

A new variant is one file with a subclass of `Variant` and one line in `_CLASSES`. Listing the names imports
neither torch nor PEFT; asking for a class does.

    >>> from trainables.variants import available, get_variant
    >>> available()[:2]
    ['adalora', 'corda']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.variants.core.base import AdapterConfig, Variant
    from trainables.variants.core.plain import PlainLora

__all__ = ["VARIANTS", "AdapterConfig", "PlainLora", "Variant", "available", "describe", "get_variant"]

_CLASSES = {
    "adalora": "adalora:AdaLora",
    "corda": "corda:Corda",
    "dora": "dora:Dora",
    "dylora": "dylora:DyLora",
    "eva": "eva:Eva",
    "full": "full:Full",
    "gralora": "gralora:Gralora",
    "hyper_adalora": "hyper_adalora:HyperAdaLora",
    "hyper_dora": "hyper_dora:HyperDora",
    "hyper_dylora": "hyper_dylora:HyperDyLora",
    "hyper_lora": "hyper_lora:HyperLora",
    "init_ab": "init_ab:InitAB",
    "lelora": "lelora:LeLora",
    "loft": "loft:Loft",
    "lora": "lora:Lora",
    "lora_fa": "lora_fa:LoraFa",
    "lora_ga": "lora_ga:LoraGa",
    "lora_plus": "lora_plus:LoraPlus",
    "lora_xs": "lora_xs:LoraXS",
    "melora": "melora:MeLora",
    "mica": "mica:Mica",
    "milora": "milora:Milora",
    "miss": "miss:Miss",
    "mora": "mora:Mora",
    "olora": "olora:Olora",
    "orthogonal": "orthogonal:Orthogonal",
    "pissa": "pissa:Pissa",
    "randlora": "randlora:RandLora",
    "rslora": "rslora:RsLora",
    "vera": "vera:Vera",
}

_CORE = {"AdapterConfig": "base", "PlainLora": "plain", "Variant": "base"}


class _Registry(Mapping[str, "type[Variant]"]):
    """Name -> class, where a class is imported when it is first asked for."""

    def __getitem__(self, name: str) -> type[Variant]:
        module, _, attribute = _CLASSES[name].partition(":")
        return getattr(import_module(f"{__name__}.{module}"), attribute)

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(_CLASSES))

    def __len__(self) -> int:
        return len(_CLASSES)


VARIANTS: Mapping[str, type[Variant]] = _Registry()


def available() -> list[str]:
    """Names of all variants, sorted."""
    return sorted(_CLASSES)


def get_variant(name: str) -> type[Variant]:
    """The class of a variant.

    Raises:
        ValueError: no variant has that name; the message lists those there are.
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
        for cls in VARIANTS.values()
    ]


def __getattr__(name: str) -> Any:
    if name in _CORE:
        return getattr(import_module(f"{__name__}.core.{_CORE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
