from __future__ import annotations

import json
from pathlib import Path

import pytest

from raylora.data.sources import open_splits, split_names, wanted
from raylora.errors import UserError


def write(path: Path, count: int = 4, begin: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"q{n}", "response": f"a{n}"} for n in range(begin, begin + count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(source) -> list[dict]:
    return [row for table in source.tables() for row in table.to_pylist()]


def prompts(source) -> list[str]:
    return [row["prompt"] for row in rows(source)]


def test_files_whose_names_say_nothing_are_all_train(tmp_path):
    write(tmp_path / "a.jsonl")
    write(tmp_path / "deep" / "b.jsonl")
    (tmp_path / "c.csv").write_text("question,answer\n1,2\n")
    (tmp_path / "dataset_info.json").write_text("{}")
    found = open_splits(str(tmp_path))["train"]
    assert prompts(found) == ["q0", "q1", "q2", "q3", "1", "q0", "q1", "q2", "q3"]
    assert found.told.count("prompts and responses") == 2


def test_a_glob_takes_what_it_matches(tmp_path):
    write(tmp_path / "a" / "x.jsonl", 1)
    write(tmp_path / "b" / "y.jsonl", 1, begin=5)
    assert prompts(open_splits(str(tmp_path / "**" / "*.jsonl"))["train"]) == ["q0", "q5"]


def test_a_folder_that_datasets_saved_is_read(tmp_path):
    import datasets

    rows_of = datasets.Dataset.from_list([{"prompt": "q", "response": "a"}])
    datasets.DatasetDict({"train": rows_of, "test": rows_of}).save_to_disk(str(tmp_path / "both"))
    rows_of.save_to_disk(str(tmp_path / "one"))
    assert sorted(open_splits(str(tmp_path / "both"))) == ["test", "train"]
    assert prompts(open_splits(str(tmp_path / "one"))["train"]) == ["q"]


def test_every_row_says_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jsonl").write_text('{"prompt": "q", "response": "a"}\n\nno json\n')
    found = rows(open_splits("t.jsonl")["train"])
    assert [(row["source_file"], row["source_row"], row["problem"] and row["problem"][:6]) for row in found] == [
        ("t.jsonl", 1, None), ("t.jsonl", 3, "broken"),
    ]  # fmt: skip


def test_splits_come_from_sources_of_their_own(tmp_path):
    train, test = write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl", begin=10)
    folder = write(tmp_path / "c" / "validation.jsonl", 2, begin=20).parent
    write(folder / "train.jsonl")
    found = open_splits(None, own={"train": str(train), "test": [str(test), str(train)], "validation": str(folder)})
    assert prompts(found["test"]) == ["q10", "q11", "q12", "q13", "q0", "q1", "q2", "q3"]
    assert prompts(found["validation"]) == ["q20", "q21"]


@pytest.mark.parametrize(
    ("slice_", "kept"),
    [
        ("train[:50%]", [0, 1]),
        ("train[1:3]", [1, 2]),
        ("train[-1:]", [3]),
        ("train[:1]+train[3:]", [0, 3]),
        ("train", [0, 1, 2, 3]),
    ],
)
def test_a_part_of_a_split_is_named_as_datasets_names_it(tmp_path, slice_, kept):
    path = str(write(tmp_path / "a.jsonl"))
    assert prompts(open_splits(path, own={"train": slice_})["train"]) == [f"q{n}" for n in kept]
    mapping = {"path": path, "split": slice_}
    assert prompts(open_splits(None, own={"train": mapping})["train"]) == [f"q{n}" for n in kept]


def test_weights_are_shares_of_the_mix_and_no_row_comes_twice(tmp_path):
    many, few = write(tmp_path / "a.jsonl", 100), write(tmp_path / "b.jsonl", 10, begin=1000)
    own = {"train": [{"path": str(many), "weight": 3}, {"path": str(few), "weight": 1}]}
    mixed = prompts(open_splits(None, own=own)["train"])
    assert len(mixed) == len(set(mixed)) == 40
    assert sum(int(prompt[1:]) >= 1000 for prompt in mixed) == 10
    assert mixed == prompts(open_splits(None, own=own)["train"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"split": "train"}, "task.train.path: missing"),
        ({"path": "x", "share": 1}, "task.train.share: no such key"),
        ({"path": "x", "weight": 0}, "task.train.weight: 0; allowed: a number above 0"),
        ([{"path": "x", "weight": 1}, "y"], "some sources have a weight and some have none"),
        (3, "task.train: 3; allowed: a path"),
    ],
)
def test_a_source_that_says_too_little_is_named(value, message):
    with pytest.raises(UserError, match=message):
        wanted("task.train", value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", "", "no row can be read in .*empty.jsonl; it is empty"),
        ("bad.jsonl", "x\ny\n", "no row can be read in .*bad.jsonl; no JSON, .* at .*bad.jsonl:1"),
        ("a.txt", "x", "'.*a.txt' must end in one of .parquet, .jsonl"),
    ],
)
def test_a_file_without_rows_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        rows(open_splits(str(tmp_path / name))["train"])
    assert "\n" not in str(caught.value)


def test_a_slice_beyond_the_rows_is_one_line(tmp_path):
    path = str(write(tmp_path / "a.jsonl"))
    with pytest.raises(UserError, match=r"split: 'train\[:x\]'"):
        prompts(open_splits(path, own={"train": "train[:x]"})["train"])


def test_the_workers_give_the_same_rows(tmp_path, ray_local, monkeypatch):
    from raylora.data import readers

    monkeypatch.setattr(readers, "_BYTES_PER_PART", 100)
    found = open_splits(str(write(tmp_path / "a.jsonl", 9)))["train"]
    assert len(found.parts) > 1
    assert sorted(found().take_all(), key=lambda row: row["source_row"]) == rows(found)


def test_values_of_several_types_in_a_column_are_read_as_their_text(tmp_path):
    values = ["3", '"seven"', "2.50"]
    lines = [f'{{"prompt": "q{n}", "answer": {value}}}\n' for n, value in enumerate(values)]
    (tmp_path / "t.jsonl").write_text("".join(lines))
    assert [row["response"] for row in rows(open_splits(str(tmp_path / "t.jsonl"))["train"])] == [
        "3", "seven", "2.50",
    ]  # fmt: skip


def test_a_test_split_alone_is_read_where_train_is_named_too(tmp_path):
    write(tmp_path / "test.jsonl", 2)
    only = {"path": str(tmp_path), "split": "test"}
    found = open_splits(str(tmp_path), own={"train": only, "test": only})
    assert prompts(found["test"]) == ["q0", "q1"]
    assert split_names(str(tmp_path)) == ["test"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("none.csv", r"task.test_sets.a: 'none.csv' does not exist"),
        (None, r"task.test_sets.a.split: .* no split 'tset'"),
    ],
)
def test_a_source_that_is_not_there_is_told_by_its_own_field(tmp_path, source, told) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("prompt,response\na,b\n")
    own = {"test.a": source or {"path": str(file), "split": "tset"}}
    with pytest.raises(UserError, match=told):
        open_splits(str(file), own=own)
