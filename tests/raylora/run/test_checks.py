from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raylora.errors import UserError
from raylora.run.checks import check_storage, check_world
from raylora.spec import load


@pytest.mark.parametrize(
    ("changes", "field", "value", "allowed"),
    [
        ({"space__variant": ["lora", "dorra"]}, "space.variant", "dorra", "dora"),
        ({"task__name": "instrukt"}, "task.name", "instrukt", "instruct"),
        ({"search__searcher": "lnguage"}, "search.searcher", "lnguage", "language"),
        ({"search__options": {"n_start": 3}}, "search.options.n_start", 3, None),
        ({"task__path": "/nowhere.jsonl"}, "task.path", "/nowhere.jsonl", None),
        ({"model": "/nowhere"}, "model", "/nowhere", "smollm2-135m"),
    ],
)
def test_a_mistake_says_its_field_its_value_and_what_would_do(write_spec, changes, field, value, allowed) -> None:
    with pytest.raises(UserError) as caught:
        check_world(load(write_spec(**changes)))
    error: Any = caught.value
    assert (error.field, error.value) == (field, value)
    assert allowed is None or allowed in error.allowed
    assert str(error).startswith(field) and "\n" not in str(error)


def test_what_is_right_passes(write_spec, tmp_path) -> None:
    check_world(load(write_spec()))
    assert (tmp_path / "runs").is_dir()


def test_storage_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_storage(str(tmp_path / "new" / "runs"))
    assert list((tmp_path / "new" / "runs").iterdir()) == []
