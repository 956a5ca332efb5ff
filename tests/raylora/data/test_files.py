from __future__ import annotations

from pathlib import Path

import pytest

from raylora.data.files import find_splits, is_hub_id
from raylora.errors import UserError


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def names(splits):
    return {split: [Path(file).name for file in files] for split, files in splits.items()}


def test_names_of_files_and_folders_say_the_split(tmp_path):
    for name in (
        "my_train_1.jsonl",
        "sub/dev/a.jsonl",
        "sub/test-00000-of-00001.jsonl",
        "README.md",
        ".hidden/train.jsonl",
    ):
        touch(tmp_path / name)
    assert names(find_splits(str(tmp_path))) == {
        "train": ["my_train_1.jsonl"], "validation": ["a.jsonl"], "test": ["test-00000-of-00001.jsonl"],
    }  # fmt: skip


def test_a_copy_in_another_format_is_read_once(tmp_path):
    for name in ("train.jsonl", "train.parquet"):
        touch(tmp_path / name)
    assert names(find_splits(str(tmp_path))) == {"train": ["train.parquet"]}


def test_a_selection_of_a_splits_rows_is_not_read_beside_the_split(tmp_path):
    for name in ("train.parquet", "train2.parquet", "test.parquet", "test500.parquet"):
        touch(tmp_path / name)
    assert names(find_splits(str(tmp_path))) == {"train": ["train.parquet"], "test": ["test.parquet"]}
    (tmp_path / "test.parquet").unlink()
    assert names(find_splits(str(tmp_path)))["test"] == ["test500.parquet"]


@pytest.mark.parametrize("made", ["nothing", "test only"])
def test_a_folder_without_train_is_one_line(tmp_path, made):
    if made == "test only":
        touch(tmp_path / "test.jsonl")
    with pytest.raises(UserError, match=r"has test but no train split|has no train\.parquet"):
        find_splits(str(tmp_path))


def test_what_is_here_is_no_hub_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("openai/gsm8k") and not is_hub_id("./gsm8k") and not is_hub_id("gsm8k")
    touch(tmp_path / "openai" / "gsm8k")
    assert not is_hub_id("openai/gsm8k")
