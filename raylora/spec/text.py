"""From the text that a user writes to plain data, and from pydantic's errors to one line to act on."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from raylora.errors import UserError


class _Loader(yaml.SafeLoader):
    """Safe YAML where 1e-3 is a number (YAML 1.1 asks for 1.0e-3) and a key given twice is an error.

    So is what PyYAML itself stumbles over (a 40th of May, `!!int x`), and an alias within what it stands for.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            # Deep: a collection that has itself for an item is found out at once.
            return super().construct_object(node, deep=True)
        except (ValueError, LookupError, AttributeError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            told = f"{short(node.value)} is no {kind} that can be read"
            raise yaml.constructor.ConstructorError(None, None, told, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_value(text: str) -> Any:
    """YAML text, with 1e-3 as a number. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def short(value: object, limit: int = 80) -> str:
    """The value on one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no whole number of more than some thousand digits
        text = "a number of too many digits"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def choose(name: str, allowed: Sequence[str], limit: int = 40) -> str:
    """`did you mean ..?` where something is near, then what is allowed."""
    listed = ", ".join(allowed[:limit]) + (f" and {len(allowed) - limit} more" if len(allowed) > limit else "")
    return f"{meant(name, allowed)}allowed: {listed or 'nothing'}"


def meant(name: str, known: Iterable[str]) -> str:
    """`did you mean ..? ` with the nearest of the names, whatever their case; empty where none is near."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[near[0]]!r}? " if near else ""


def read_yaml(path: Path) -> dict[str, object]:
    """The mapping in a YAML file. Errors: UserError for a missing, unreadable or malformed file."""
    try:
        data = parse_value(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unread(path, "no such file; allowed: the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unread(path, f"cannot be read ({_one_line(error)})") from None
    except yaml.YAMLError as error:
        raise _unread(path, f"not valid YAML, {_where(error)}") from None
    if not isinstance(data, dict):
        raise _unread(path, f"holds {_kind(data)}; allowed: a mapping (model:, task:, ...)")
    return data


def _unread(path: Path, told: str) -> UserError:
    return UserError(f"spec = {str(path)!r}: {told}", field="spec", value=str(path))


def apply_overrides(data: Mapping[str, object], overrides: Iterable[str]) -> dict[str, object]:
    """A copy of `data` with each `dotted.key=value` put in; later ones win. Errors: UserError."""
    return put(data, [parse_override(override) for override in overrides])


def parse_override(override: str) -> tuple[str, object]:
    """Key and value of `dotted.key=value`. Errors: UserError."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise UserError(
            f"override {override!r}: not of the form dotted.key=value, such as search.trials=20",
            field="override",
            value=override,
        )
    try:
        return key, parse_value(text)
    except yaml.YAMLError as error:
        raise UserError(f"{key} = {text!r}: not valid YAML, {_where(error)}", field=key, value=text) from None


def put(data: Mapping[str, object], values: Mapping[str, object] | Iterable[tuple[str, object]]) -> dict[str, Any]:
    """A copy of `data` with each value put in at its dotted key; later ones win. Errors: UserError."""
    result = _copy(data)
    for key, value in values.items() if isinstance(values, Mapping) else values:
        parts = key.split(".")
        inner = result
        for depth, part in enumerate(parts[:-1], 1):
            if inner.get(part) is None:
                inner[part] = {}
            inner = inner[part]
            if not isinstance(inner, dict):
                told = f"override '{key}={value}': {'.'.join(parts[:depth])} is {short(inner)}"
                raise UserError(f"{told}, which has no keys below it", field=key, value=value)
        inner[parts[-1]] = value
    return result


def explain(error: ValidationError, model: type[BaseModel]) -> UserError:
    """The first of pydantic's errors as one line: field, value, what is allowed."""
    errors = error.errors(include_url=False)
    # A misspelt key is the likeliest cause of the others ("missing"), so it is told first.
    first = min(errors, key=lambda item: item["type"] != "extra_forbidden")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    field, allowed = _dotted(first["loc"]), _expected(first, model)
    value = None if isinstance(first["input"], Mapping | BaseModel) else first["input"]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UserError):  # of a part of the spec, which knows the one of its fields that is wrong
        field, value, allowed = ".".join(filter(None, (field, cause.field))), cause.value, cause.allowed
    return UserError(_line(first, model) + more, field=field, value=value, allowed=allowed)


def _expected(item: Any, model: type[BaseModel]) -> object:
    """What would be taken: keys, values, or words; None where the line says all there is."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return _fields_at(model, item["loc"][:-1])
    if kind == "literal_error":
        return re.findall(r"'([^']*)'", context["expected"])
    if kind in ("missing", "value_error"):
        return None
    words = _allowed(kind, context, "")
    return words.removeprefix("allowed: ") or None


def _line(item: Any, model: type[BaseModel]) -> str:
    kind, loc, value, context = item["type"], item["loc"], item["input"], item.get("ctx", {})
    name = _dotted(loc)
    if kind == "extra_forbidden":
        fields = _fields_at(model, loc[:-1])
        return f"{name} = {short(value)}: no such key; {choose(str(loc[-1]), fields)}"
    if kind == "missing":
        return f"{name}: missing; set it, for example {name}=VALUE on the command line"
    if kind == "value_error":
        text = str(context["error"])
        if not isinstance(value, dict | BaseModel):
            return f"{name} = {short(value)}: {text}"
        if not name:
            return text
        return f"{name}.{text}" if re.match(r"[a-z_.]+ = ", text) else f"{name}: {text}"
    return f"{name} = {short(value)}: {_allowed(kind, context, item['msg'])}"


def _allowed(kind: str, context: Mapping[str, object], message: str) -> str:
    texts = {
        "int_type": "allowed: a whole number",
        "int_from_float": "allowed: a whole number",
        "float_type": "allowed: a number",
        "finite_number": "allowed: a finite number",
        "string_type": "allowed: text",
        "bool_type": "allowed: true or false",
        "list_type": "allowed: a list",
        "dict_type": "allowed: a mapping",
        "model_type": "allowed: a mapping",
        "too_short": "allowed: at least one value",
        "string_too_short": "allowed: text that is not empty",
        "string_pattern_mismatch": "allowed: letters, digits, '.', '_', '-'; a letter or digit first",
    }
    if kind in texts:
        return texts[kind]
    if kind == "literal_error":
        return f"allowed: {context['expected']}"
    for bound, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
        if bound in context:
            return f"allowed: {words} {context[bound]:g}"
    return _one_line(message)


def _dotted(loc: Sequence[object]) -> str:
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        # The branches of a union are pydantic's own words (`bool`, `list[int]`), no part of the user's path.
        elif part not in ("bool", "int", "float", "str"):
            text += f".{part}" if text else str(part)
    return text


def _fields_at(model: type[BaseModel], loc: Sequence[object]) -> list[str]:
    for part in loc:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        below = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not below:
            return []
        model = below[0]
    return list(model.model_fields)


def _copy(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or _one_line(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark is not None else str(problem)
