"""What a variant's own options may be: each check raises ValueError, which names option, value and remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.variants.core.base import Variant
    from trainables.variants.core.config import AdapterConfig


def check_choice(variant: type[Variant], config: AdapterConfig, option: str, allowed: Sequence[Any]) -> None:
    """Refuses a value that is not one of `allowed`."""
    value = config.extra.get(option, variant.options[option])
    if not any(value == known and type(value) is type(known) for known in allowed):
        names = ", ".join(str(known).lower() if isinstance(known, bool) else str(known) for known in allowed)
        raise ValueError(f"variant {variant.name}: option {option} is {value!r}: use one of {names}")


def check_whole(
    variant: type[Variant], config: AdapterConfig, option: str, least: int = 1, most: int | None = None
) -> int:
    """The option's value, which must be a whole number from `least` to `most`."""
    value = config.extra.get(option, variant.options[option])
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most and value > most):
        allowed = f"from {least} to {most}" if most else f"of at least {least}"
        raise ValueError(f"variant {variant.name}: option {option} is {value!r}: use a whole number {allowed}")
    return value


def check_number(
    variant: type[Variant], config: AdapterConfig, option: str, allowed: Callable[[float], bool], remedy: str
) -> None:
    """Refuses, in words that end in `remedy`, what is not a finite number that is allowed."""
    value = config.extra.get(option, variant.options[option])
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not allowed(value):
        raise ValueError(f"variant {variant.name}: option {option} is {value!r}: {remedy}")
