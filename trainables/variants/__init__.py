"""LoRA variants: one file each, one registry, one conformance suite (`trainables.variants.testing`).

A new variant is one file with a subclass of `Variant`, called as the variant, or a class of another package (entry
points `raylora.variants`). Listing the names imports neither torch nor PEFT; asking for a class does.

    >>> from trainables.variants import available, get_variant
    >>> available()[:2]
    ['adalora', 'corda']
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.registry import PluginError, Registry
from trainables.variants.core.declared import Declared, declared_of, read_declared

if TYPE_CHECKING:
    from trainables.variants.core.base import Variant
    from trainables.variants.core.config import AdapterConfig
    from trainables.variants.core.plain import PlainLora

__all__ = [
    "VARIANTS",
    "AdapterConfig",
    "PlainLora",
    "Variant",
    "available",
    "declared",
    "describe",
    "get_variant",
    "scale_rules",
    "start_actors",
]

_CORE = {"AdapterConfig": "config", "PlainLora": "plain", "Variant": "base"}

VARIANTS: Registry[Variant] = Registry(
    __name__, group="raylora.variants", base=f"{__name__}.core.base:Variant", apart=("testing",)
)


def available() -> list[str]:
    """Names of all variants, sorted.

    Example:
        >>> {"dora", "lora", "pissa"} <= set(available())
        True
    """
    return VARIANTS.names()


def get_variant(name: str) -> type[Variant]:
    """The class of a variant.

    Raises:
        ValueError: no variant has that name (the message lists those there are), or it is a plug-in that cannot be
            used.

    Example:
        >>> get_variant("rslora").scale_rule
        'alpha / sqrt(rank)'
    """
    if name not in VARIANTS:
        raise ValueError(f"variant {name!r} is unknown: use one of {', '.join(available())}")
    return VARIANTS[name]


@functools.cache
def declared(name: str) -> Declared:
    """What a variant declares about itself; of a built-in one, without importing torch.

    Raises:
        ValueError: as `get_variant`.

    Example:
        >>> declared("loft").rate_of
        'full'
    """
    if name in VARIANTS and VARIANTS.origin(name) is None:
        return read_declared(Path(__file__).with_name(f"{name}.py"), name)
    return declared_of(get_variant(name))


def scale_rules() -> dict[str, str]:
    """How alpha scales each variant whose rule is not LoRA's, alpha / rank; of plug-ins, those that load.

    Example:
        >>> "lora" in scale_rules(), "rslora" in scale_rules()
        (False, True)
    """
    found = {}
    for name in available():
        try:
            rule = declared(name).scale_rule
        except PluginError:
            continue
        if rule != Declared.scale_rule:
            found[name] = rule
    return found


def start_actors(names: Iterable[str], checkpoints: Path) -> dict[str, Any]:
    """The actors that these variants declare, by variant; they write below the folder `checkpoints`.

    Example:
        >>> start_actors(["lora", "dora"], Path("checkpoints"))  # neither has one
        {}
    """
    found = {}
    for name in sorted(set(names)):
        start = declared(name).actor
        if start is not None:
            module, _, function = start.partition(":")
            found[name] = getattr(import_module(module), function)(checkpoints)
    return found


def describe() -> list[dict[str, Any]]:
    """One row per variant: name, summary, paper, parameters, exports_lora, saves, runs_on, options.

    Example:
        >>> [row["options"] for row in describe() if row["name"] == "pissa"]
        [{'niter': 4}]
    """
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
