from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from raylora.errors import UserError
from raylora.spec.text import apply_overrides, choose, explain, parse_value, put, read_yaml, short


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("[4, 8]", [4, 8]), ("null", None), ("1.e5x", "1.e5x")])
def test_numbers_are_read_as_people_write_them(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("model: [", "line 1"),
        ("model: a\nmodel: b\n", "'model' is there twice"),
        ("- a\n", "holds a list"),
        ("", "holds nothing"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, text: str | None, part: str) -> None:
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["search.trials", "=3", "search..trials=3", "model.x=1", "search.trials=[1"])
def test_a_malformed_override_is_named(override: str) -> None:
    with pytest.raises(UserError) as caught:
        apply_overrides({"model": "tiny", "search": {}}, [override])
    assert override.partition("=")[0] in str(caught.value)


def test_what_is_put_in_leaves_what_was_given_as_it_was() -> None:
    given = {"search": {"trials": 3}, "space": {"rank": [4]}}
    changed = put(given, {"search.trials": 5, "final.seeds": 2})
    assert changed == {"search": {"trials": 5}, "space": {"rank": [4]}, "final": {"seeds": 2}}
    changed["space"]["rank"].append(8)
    assert given == {"search": {"trials": 3}, "space": {"rank": [4]}}


def test_a_near_name_is_asked_for_and_a_long_list_is_cut() -> None:
    assert choose("lora_", ["dora", "lora"]) == "did you mean 'lora'? allowed: dora, lora"
    assert choose("x", list("abcd"), limit=2) == "allowed: a, b and 2 more"


def test_a_long_value_is_cut_to_one_line() -> None:
    told = short("a\nb" * 100)
    assert len(told) == 80 and told.endswith("...") and "\n" not in told


def test_a_misspelt_key_is_told_before_what_it_leaves_missing() -> None:
    class Model(BaseModel, extra="forbid"):
        trials: int

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"trails": 3})
    told = explain(caught.value, Model)
    assert str(told) == "trails = 3: no such key; did you mean 'trials'? allowed: trials (and 1 more)"
    assert told.field == "trails"
