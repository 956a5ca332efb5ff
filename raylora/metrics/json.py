"""Completions that are JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylora.errors import UserError
from raylora.metrics.base import (
    Estimate,
    Metric,
    MetricRow,
    Value,
    check_choice,
    check_flag,
    check_lengths,
    parts_estimate,
)
from raylora.metrics.core.missing import library
from raylora.metrics.core.references import metadata_of

KINDS = ("valid", "schema", "equal")
_FENCED = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)```", re.DOTALL)


class Json(Metric):
    """Share of completions that are JSON: valid, matching a schema, or equal to the answer.

    All three are computed where they can be, and come as parts; `count` is the value. Equal means the same value: the
    order of keys and the spacing do not count, and 1 is 1.0 but not true. NaN and Infinity are no JSON.

    Args:
        schema: a JSON schema (a mapping, or the path of a file); without it, a row's own under `schema` in its
            metadata. A completion whose row has none matches where it is valid. References to other addresses are not
            followed.
        count: `valid`, `schema` or `equal`.
        fenced: whether JSON in a Markdown code block counts too, with text around it.
    """

    name = "json"
    summary = "the completion is valid JSON, matches a JSON schema, or equals the answer as JSON"

    def __init__(
        self, *, schema: Mapping[str, Any] | str | None = None, count: str = "schema", fenced: bool = True
    ) -> None:
        check_choice(self.name, "count", count, KINDS)
        check_flag(self.name, "fenced", fenced)
        self.count, self.fenced = count, fenced
        self.schema = _read(schema) if isinstance(schema, str) else schema
        if self.schema is not None:
            _validator(self.schema, "json.schema")

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        """Whether each is valid, matches its schema and equals its answer, in the order of `KINDS`, `(n, 3)`."""
        check_lengths(outputs, rows)
        fixed = None if self.schema is None else _validator(self.schema, "json.schema")
        return [self._row(text, row, fixed) for text, row in zip(outputs, rows, strict=True)]

    def _row(self, text: str, row: MetricRow, validator: object) -> tuple[float | str, ...]:
        valid, found = self._parse(text)
        if not valid:
            return (0.0, 0.0, 0.0)
        own = metadata_of(row).get("schema") if validator is None else None
        if own is not None:
            validator = _validator(own, "metadata.schema")
        matches = validator is None or _matches(found, validator)
        known, wanted = self._parse(row["answer"])
        try:
            equal = known and _same(found, wanted)
        except RecursionError:
            equal = False
        return (1.0, float(matches), float(equal))

    def _parse(self, text: str) -> tuple[bool, object]:
        texts = [text, *(_FENCED.findall(text) if self.fenced else ())]
        for one in texts:
            try:
                return True, json.loads(one, parse_constant=_refuse)
            except (ValueError, RecursionError):
                continue
        return False, None

    def summarise(self, values: Sequence[Value]) -> Estimate:
        return parts_estimate(values, KINDS, self.count)


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def _read(path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError.at(
            "json.schema", f"{path} cannot be read as JSON ({error}); give a schema or its file", value=str(path)
        ) from error
    if not isinstance(found, dict):
        raise UserError.at("json.schema", f"{path} holds no JSON object; give a JSON schema", value=str(path))
    return found


def _validator(schema: object, field: str) -> object:
    jsonschema = library("jsonschema", "json")
    from referencing import Registry

    try:
        cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        cls.check_schema(schema)
    except (jsonschema.SchemaError, AttributeError, TypeError) as error:
        reason = str(getattr(error, "message", error))
        raise UserError.at(field, f"no JSON schema: {reason}", value=schema) from error
    # A registry of nothing: the validator's own would fetch what a schema refers to.
    return cls(schema, registry=Registry())


def _matches(found: Any, validator: Any) -> bool:
    from referencing.exceptions import Unresolvable

    try:
        return bool(validator.is_valid(found))
    except (RecursionError, ArithmeticError):  # a number beyond all bounds is a multiple of none
        return False
    except Unresolvable as error:
        raise UserError.at("json.schema", f"a reference in it cannot be followed: {error}") from error


def _same(first: object, second: object) -> bool:
    # Python holds True for 1.
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)
