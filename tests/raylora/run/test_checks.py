from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylora.data import readers
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
        ({"train__attention": "flash"}, "train.attention", "flash", "sdpa"),
        ({"train__liger": True}, "train.liger", True, "auto"),
        ({"train__compile": True, "resources": {"pack": 2}}, "train.compile", True, None),
        ({"train__compile": True, "resources": {"workers": 2, "strategy": "fsdp"}}, "train.compile", True, None),
        (
            {"train__adapter_dtype": "bfloat16", "space__variant": ["loft"]},
            "train.adapter_dtype",
            "bfloat16",
            "float32",
        ),
    ],
)
def test_a_mistake_says_its_field_its_value_and_what_would_do(write_spec, changes, field, value, allowed) -> None:
    with pytest.raises(UserError) as caught:
        check_world(load(write_spec(**changes)))
    error: Any = caught.value
    assert (error.field, error.value) == (field, value)
    assert allowed is None or allowed in error.allowed
    assert str(error).startswith(field) and "\n" not in str(error)


def test_what_compiles_has_to_be_there(write_spec, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        UserError, match=r"train.compile = true: it needs a C\+\+ compiler; install g\+\+, or set it to false"
    ):
        check_world(load(write_spec(train__compile=True)))


def test_what_is_right_passes(write_spec, tmp_path) -> None:
    check_world(load(write_spec()))
    assert (tmp_path / "runs").is_dir()


def test_storage_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_storage(str(tmp_path / "new" / "runs"))
    assert list((tmp_path / "new" / "runs").iterdir()) == []


def columns_file(file: Path) -> Path:
    """Rows with the columns `input` and `output`, in the format that the file's name says."""
    table = pa.table({"input": ["a", "b", "c"], "output": ["x", "y", "x"]})
    if file.suffix == ".parquet":
        pq.write_table(table, file)
        return file
    lines = ["input,output", "a,x", "b,y", "c,x"] if ".csv" in file.name else map(json.dumps, table.to_pylist())
    open_as = gzip.open if file.suffix == ".gz" else open
    with open_as(file, "wt") as stream:
        stream.write(f"[{','.join(lines)}]" if file.suffix == ".json" else "\n".join(lines))
    return file


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.jsonl.gz", "t.json", "t.parquet"])
def test_a_column_that_is_not_there_is_found_from_the_first_rows(write_spec, tmp_path, name) -> None:
    given = {"task__path": str(columns_file(tmp_path / name)), "task__proxy": 1.0}
    check_world(load(write_spec(**given, task__columns={"prompt": "input", "response": "output"})))
    with pytest.raises(UserError) as caught:
        check_world(load(write_spec(**given, task__columns={"prompt": "imput", "response": "output"})))
    told = "task.columns.prompt: no column 'imput'; did you mean 'input'? present: input, output"
    assert str(caught.value) == told and (caught.value.field, caught.value.value) == ("task.columns.prompt", "imput")


def test_a_test_set_without_the_columns_or_rows_is_found_before_the_search(write_spec, tmp_path) -> None:
    test = str(columns_file(tmp_path / "t.csv"))
    spec = load(write_spec(task__test=test, task__columns={"prompt": "prompt", "response": "response"}))
    with pytest.raises(UserError, match=r"^task\.columns\.prompt: no column 'prompt'; .*present: input, output$"):
        check_world(spec)
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UserError, match=r"no row can be read in .*none\.jsonl; it is empty"):
        check_world(load(write_spec(task__test=str(tmp_path / "none.jsonl"))))
    check_world(load(write_spec(task__test=str(tmp_path / "none.jsonl"), final__enabled=False)))


def test_no_more_than_the_first_rows_of_a_file_are_read_for_its_columns(write_spec, tmp_path, monkeypatch) -> None:
    seen: list[int] = []
    real = readers._object
    monkeypatch.setattr(readers, "_object", lambda line: seen.append(1) or real(line))
    row = json.dumps({"prompt": "1+1=", "response": "2"})
    (tmp_path / "long.jsonl").write_text(f"{row}\n" * 5000)
    check_world(load(write_spec(task__path=str(tmp_path / "long.jsonl"))))
    assert 0 < len(seen) <= 200


def test_words_in_a_test_set_of_a_regression_are_found_before_the_search(write_spec, tmp_path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na b,1\nc d,2.5\n")
    (tmp_path / "words.csv").write_text("text,label\na b,1\nc d,high\n")
    task = {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "words.csv"), "head": "regression"}
    with pytest.raises(UserError, match=r"task.head: regression, but a test row has the answer 'high'"):
        check_world(load(write_spec(task=task)))
    check_world(load(write_spec(task={**task, "test": str(tmp_path / "train.csv")})))
