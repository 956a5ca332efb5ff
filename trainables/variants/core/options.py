"""What a variant's own options may be: each check raises OptionError, which names option, value and remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trainables.errors import OptionError

if TYPE_CHECKING:
    from trainables.variants.core.base import Variant
    from trainables.variants.core.config import AdapterConfig


def refused(variant: type[Variant], option: str, value: object, remedy: str, allowed: object = None) -> OptionError:
    """The error of an option's value, in words that end in the remedy."""
    message = f"variant {variant.name}: option {option} is {value!r}: {remedy}"
    return OptionError(message, field=f"extra.{option}", value=value, allowed=allowed)


def check_choice(variant: type[Variant], config: AdapterConfig, option: str, allowed: Sequence[object]) -> None:
    """Refuses a value that is not one of `allowed`."""
    value = config.extra.get(option, variant.options[option])
    if not any(value == known and type(value) is type(known) for known in allowed):
        names = ", ".join(str(known).lower() if isinstance(known, bool) else str(known) for known in allowed)
        raise refused(variant, option, value, f"use one of {names}", allowed)


def check_whole(
    variant: type[Variant], config: AdapterConfig, option: str, least: int = 1, most: int | None = None
) -> int:
    """The option's value, which must be a whole number from `least` to `most`."""
    value = config.extra.get(option, variant.options[option])
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most and value > most):
        allowed = f"from {least} to {most}" if most else f"of at least {least}"
        raise refused(variant, option, value, f"use a whole number {allowed}", f"a whole number {allowed}")
    return value


def check_number(
    variant: type[Variant], config: AdapterConfig, option: str, allowed: Callable[[float], bool], remedy: str
) -> None:
    """Refuses, in words that end in `remedy`, what is not a finite number that is allowed."""
    value = config.extra.get(option, variant.options[option])
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not allowed(value):
        raise refused(variant, option, value, remedy, remedy.removeprefix("use "))
