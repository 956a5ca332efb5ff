"""Variants with options, as benchmarks name them: `variant` or `variant:option=value:option=value`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raylora.errors import UserError


@dataclass(frozen=True)
class Arm:
    """A variant with its options.

    Attributes:
        label: as written, `variant` or `variant:option=value:option=value`.
    """

    label: str
    variant: str
    options: Mapping[str, Any] = field(default_factory=dict)


def parse_arm(text: str) -> Arm:
    """`hyper_adalora:preset=paper:hidden=16` -> the arm; values are YAML scalars.

    Raises:
        UserError: no such variant or option, or an option without a value.
    """
    import yaml

    from raylora.spec.text import choose, parse_value
    from trainables.variants import available, get_variant

    variant, *parts = text.strip().split(":")
    if variant not in available():
        raise UserError(
            f"{text}: no such variant; {choose(variant, list(available()))}",
            field="--arms",
            value=variant,
            allowed=list(available()),
        )
    allowed = get_variant(variant).options
    options = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or name not in allowed:
            raise UserError(
                f"{text}: {part!r} is no option of {variant}; allowed: {', '.join(allowed) or 'none'}",
                field="--arms",
                value=part,
                allowed=list(allowed),
            )
        try:
            options[name] = parse_value(value)
        except yaml.YAMLError:
            raise UserError(
                f"{text}: {value!r} is no value; allowed: a YAML scalar", field="--arms", value=value
            ) from None
    return Arm(text.strip(), variant, options)
