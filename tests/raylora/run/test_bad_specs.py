"""Whatever a spec says is taken, or told in one line: made-up specs, from the schema and beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raylora.cli import main
from raylora.errors import UserError
from raylora.run.checks import load_checked
from raylora.spec.schema import json_schema

SCHEMA = json_schema()
SPEC = {"model": "smollm2-135m", "task": {"name": "gsm8k", "path": "openai/gsm8k"}}
# What files and lines of text are broken by; random text has hardly any of it.
NASTY = [
    "",
    "\0",
    "a\nb",
    "a\u2028b",
    "\ud800",
    "~nobody/x",
    "a" * 5000,
    "../..",
    "**",
    "1" * 5000,
    "2001-99-99",
    "org/x",
]


def bounded(examples: int) -> Callable[[Any], Any]:
    """The same examples in every run; those that failed once are not kept, since they come again."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=checks)


def resolved(field: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field


def fields(part: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Path and schema of every field, the parts themselves included."""
    for name, field in part["properties"].items():
        yield (*path, name), field
        yield from fields(resolved(field), (*path, name)) if "properties" in resolved(field) else ()


FIELDS = list(fields(SCHEMA))
SAMPLES: list[Any] = [None, True, 1, "x", [[]], {"x": [[]]}]
PARTS = [(), *(path for path, field in FIELDS if "properties" in resolved(field))]
texts = st.sampled_from(NASTY) | st.text(max_size=12)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def refused(value: object, field: dict[str, Any]) -> bool:
    """Whether the schema does not take the value for the field."""
    validator = jsonschema.Draft202012Validator({**field, "$defs": SCHEMA["$defs"]})
    return not validator.is_valid(value)


def placed(path: tuple[str, ...], value: object, spec: dict[str, Any]) -> dict[str, Any]:
    """A copy of the spec with the value at the path."""
    first, *rest = path
    return {**spec, first: placed(tuple(rest), value, spec.get(first) or {}) if rest else value}


# Fields that do not take whatever there is.
TYPED = [(path, field) for path, field in FIELDS if any(refused(value, field) for value in SAMPLES)]


@st.composite
def wrong_specs(draw: st.DrawFn) -> dict[str, Any]:
    """A spec with a value that its field does not take, or with a key that nobody reads."""
    if draw(st.booleans()):
        path, field = draw(st.sampled_from(TYPED))
        return placed(path, draw(values.filter(lambda value: refused(value, field))), SPEC)
    part = draw(st.sampled_from(PARTS))
    known = {path[-1] for path, _ in FIELDS if path[:-1] == part}
    return placed((*part, draw(texts.filter(lambda key: key not in known))), draw(values), SPEC)


# Not where runs lie: such folders would be made.
MEANT = [(path, field) for path, field in FIELDS if path != ("storage_path",)]


@st.composite
def strange_specs(draw: st.DrawFn) -> dict[str, Any]:
    """A spec with two values that their fields' types allow, whatever they say."""
    spec = SPEC
    for path, field in draw(st.lists(st.sampled_from(MEANT), min_size=2, max_size=2)):
        allowed = [value for value in draw(st.lists(values, min_size=1, max_size=8)) if not refused(value, field)]
        if allowed:
            spec = placed(path, allowed[0], spec)
    return spec


def check(text: str | bytes, *, wrong: bool = False) -> None:
    """The spec that the text is, if any, passes or is refused in one line; `wrong`: is refused."""
    file = Path("spec.yaml")
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        load_checked(file)
    except UserError as error:
        line = str(error)
        assert line and len(line.splitlines()) == 1, line
    else:
        assert not wrong, "taken"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


pytestmark = pytest.mark.usefixtures("elsewhere")


@bounded(15)
@given(wrong_specs())
def test_value_that_its_field_does_not_take_is_told_in_one_line(spec: dict[str, Any]) -> None:
    check(yaml.safe_dump(spec), wrong=True)


@bounded(15)
@given(strange_specs())
def test_strange_value_is_taken_or_told_in_one_line(spec: dict[str, Any]) -> None:
    check(yaml.safe_dump(spec))


@bounded(30)
@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"%@`#?,~=0123456789._ \n\t\0\x85"), max_size=40))
def test_text_that_is_no_spec_is_told_in_one_line(text: str) -> None:
    check(text, wrong=True)


@pytest.mark.parametrize(
    "text",
    [
        "model: 2001-99-99",
        "model: 0b_",
        "model: !!int x",
        "model: !!timestamp x",
        "model: !!bool x",
        "model: !!float ''",
        "model: !!python/object/apply:os.system [id]",
        f"seed: {'9' * 5000}",
        f"seed: 0x{'f' * 5000}",
        f"version: 0x{'f' * 5000}",
        "model: &a [*a]",
        "space: &a {extra: *a}",
        "[" * 3000,
        "search: [1]",
        "? [1]\n: 2",
        "'a\\nb': 1",
        '"a\\nb": 1',
        "1: 2",
    ],
)
def test_trap_of_yaml_is_told_in_one_line(text: str) -> None:
    check(text, wrong=True)


@pytest.mark.real
@bounded(200)
@given(wrong_specs())
def test_two_hundred_wrong_specs_are_told_in_one_line_each(spec: dict[str, Any]) -> None:
    check(yaml.safe_dump(spec), wrong=True)


@pytest.mark.real
@bounded(200)
@given(strange_specs())
def test_two_hundred_strange_specs_are_taken_or_told_in_one_line_each(spec: dict[str, Any]) -> None:
    check(yaml.safe_dump(spec))


@pytest.mark.real
@bounded(200)
@given(st.binary(max_size=60))
def test_two_hundred_files_that_are_no_spec_are_told_in_one_line_each(data: bytes) -> None:
    check(data, wrong=True)


@pytest.mark.real
@bounded(10)
@given(wrong_specs())
def test_command_on_a_wrong_spec_prints_one_line_and_ends_with_status_2(
    capsys: pytest.CaptureFixture[str], spec: dict[str, Any]
) -> None:
    Path("spec.yaml").write_text(yaml.safe_dump(spec))
    assert main(["tune", "spec.yaml"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1 and told.err.startswith("raylora: ")
