from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.tasks import make_task
from raylora.tasks.published import Published

ROW = {"question": "How many?", "answer": "#### 3"}


def published(*folders: str) -> Published:
    return Published(needs=(("question",),), make=lambda raw, form: raw, hub={}, folders=folders)


def test_a_local_copy_is_a_folder_or_a_file_of_one_of_its_names(files) -> None:
    folder = files(one__train=[ROW], two=[ROW])
    assert published("one").below(str(folder)) == str(folder / "one")
    assert published("none", "two").below(str(folder)) == str(folder / "two.jsonl")
    assert published("three").below(str(folder)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_rows": 0}, "task.train_rows: 0"),
        ({"max_new_tokens": True}, "task.max_new_tokens: True"),
        ({"form": "fancy"}, "form"),
    ],
)
def test_a_wrong_option_is_named(files, options, message) -> None:
    with pytest.raises(UserError, match=message):
        make_task("gsm8k", {"path": str(files(train=[ROW])), **options})


def test_a_hub_dataset_opens_like_a_folder(monkeypatch):
    import datasets

    calls = []

    def load(*args, **options):
        calls.append((args, options))
        return datasets.Dataset.from_list([{"question": "q", "answer": "so\n#### 3"}])

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *a: ["train", "test"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    task = make_task("gsm8k")
    assert sorted(task.splits()) == ["test", "train"] and not calls
    (table,) = task.splits()["train"].tables()
    assert table["answer"].to_pylist() == ["3"]
    assert calls == [(("openai/gsm8k", "main"), {"split": "train"})]


def test_a_hub_dataset_out_of_reach_is_one_line(monkeypatch):
    import datasets

    def unreachable(*args):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "get_dataset_split_names", unreachable)
    with pytest.raises(UserError, match=r"task.path: 'openai/gsm8k' is no local .*: no route; give a local path"):
        make_task("gsm8k")
