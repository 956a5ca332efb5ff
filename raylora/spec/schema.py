"""The spec as a JSON schema, for the completion of editors and for programs that write specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raylora.spec.model import Spec
from raylora.spec.space import SpaceSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(examples: Mapping[str, Sequence[str]] | None = None) -> dict[str, object]:
    """What pydantic says of `Spec`, and what it cannot know: what else is read as such a value.

    A knob's scalar, a tracker and a metric stand for a list of one; null for the default of scheduler and llm.

    Args:
        examples: names that editors offer, by dotted key (`space.variant`); other names stay allowed.
    """
    schema = Spec.model_json_schema()
    for knob, field in schema["$defs"][SpaceSpec.__name__]["properties"].items():
        if knob != "placement":
            _accept_scalars(field)
    # The values of further knobs, by name.
    extra = schema["$defs"][SpaceSpec.__name__]["properties"]["extra"]
    _accept_scalars(extra["additionalProperties"])
    for key in ("track", "task.metrics"):
        _accept_scalars(_field(schema, key))
    for key in ("search.scheduler", "search.llm"):
        _accept_null(_field(schema, key))
    for key, names in (examples or {}).items():
        _field(schema, key)["examples"] = list(names)
    return {"$schema": DIALECT, "title": "raylora spec", **{k: v for k, v in schema.items() if k != "title"}}


def _accept_scalars(field: dict[str, Any]) -> None:
    """`[x, y]` or `x`, in place."""
    options = field.pop("anyOf", None)
    if options is None:
        if field.get("type") != "array":
            return
        words = ("type", "items", "minItems", "maxItems")
        options = [{word: field.pop(word) for word in words if word in field}]
    scalars = [option["items"] for option in options if option.get("type") == "array"]
    field["anyOf"] = [*options, *scalars]


def _accept_null(field: dict[str, Any]) -> None:
    """A value or null, in place."""
    field["anyOf"] = [{word: field.pop(word) for word in ("type", "enum") if word in field}, {"type": "null"}]


def _field(schema: dict[str, Any], key: str) -> dict[str, object]:
    """The schema of the field at a dotted key."""
    part = schema
    for name in key.split("."):
        part = part["properties"][name]
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return part
