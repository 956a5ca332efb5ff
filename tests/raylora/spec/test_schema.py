from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from raylora.spec import from_dict
from raylora.spec.schema import json_schema
from raylora.spec.text import read_yaml

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_hold_against_the_schema(path) -> None:
    jsonschema.validate(read_yaml(path), json_schema())


@pytest.mark.parametrize(
    "changes", [{"models": "x"}, {"seed": -1}, {"space": {"rank": "four"}}, {"search": {"trials": 0}}]
)
def test_mistakes_do_not(changes) -> None:
    spec = {"model": "smollm2-135m", "task": {"name": "instruct"}, **changes}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, json_schema())


def test_scalar_stands_for_a_list_of_one() -> None:
    space = {"rank": 4, "alpha_ratio": 2, "dropout": [0, 0.1], "extra": {"n": 3, "m": [1, 2]}}
    jsonschema.validate({"model": "m", "task": {"name": "instruct"}, "space": space}, json_schema())


@pytest.mark.parametrize(
    "changes",
    [
        {"track": "mlflow"},
        {"task": {"name": "instruct", "metrics": "loss"}},
        {"task": {"name": "instruct", "metrics": {"number": {"mark": "####"}}}},
        {"search": {"scheduler": None, "llm": None}},
    ],
)
def test_what_else_a_spec_may_say_holds_too(changes) -> None:
    spec = {"model": "m", "task": {"name": "instruct"}, **changes}
    from_dict(spec)
    jsonschema.validate(spec, json_schema())


def test_names_are_offered_and_others_stay_allowed() -> None:
    schema = json_schema({"search.searcher": ["random"]})
    assert schema["$defs"]["SearchSpec"]["properties"]["searcher"]["examples"] == ["random"]
    jsonschema.validate({"model": "m", "task": {"name": "t"}, "search": {"searcher": "mine"}}, schema)
