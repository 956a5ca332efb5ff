"""What the parts of a spec are made of: strictness, and knobs that may be scalars."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Part(BaseModel):
    """Strict (no string is taken for a number), finite numbers, and no key that nobody reads."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=False)


def as_list(value: Any) -> object:
    """A scalar is a list of one (a fixed knob); a list may not repeat a value."""
    values = value if isinstance(value, list) else [value]
    seen: list[Any] = []
    for item in values:
        if any(item == other and isinstance(item, bool) == isinstance(other, bool) for other in seen):
            raise ValueError(f"the value {item!r} is there twice")
        seen.append(item)
    return values


Listed = BeforeValidator(as_list)
Scalar = bool | int | float | str
