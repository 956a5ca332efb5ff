from __future__ import annotations

import pytest

from raylora.tasks import make_task
from trainables.testing import make_arithmetic_rows


def read(task, split):
    return [row for table in task.splits()[split].tables() for row in table.to_pylist()]


def row(answer: str, response: str = "") -> dict[str, str]:
    return {"answer": answer, "response": response or answer, "metadata": "{}"}


@pytest.mark.parametrize(
    ("match", "completion", "answer", "response", "score"),
    [
        ("exact", " The cat. ", "the cat", "", 1),
        ("exact", "The correct answer is TRUE", "true", "the correct answer is true", 1),
        ("exact", "a cat", "the cat", "", 0),
        ("number", "so 3 * 4 = 12 apples", "12.0", "", 1),
        ("number", "12, or rather 13", "12", "", 0),
        ("number", "none", "12", "", 0),
        ("contains", "I say: Answer2!", "answer2", "", 1),
        ("contains", "answer21", "answer2", "", 0),
        ("contains", "anything", "", " ", 0),
    ],
)
def test_each_match_accepts_what_it_says(files, match, completion, answer, response, score):
    path = files(train=make_arithmetic_rows(2))
    task = make_task("instruct", {"path": str(path), "match": match})
    assert task.score([completion], [row(answer, response)]) == [score]


def test_a_folder_gives_the_splits_that_it_has(files, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = make_arithmetic_rows(6)
    pq.write_table(pa.Table.from_pylist(rows[:3]), tmp_path / "train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(rows[3:5]), tmp_path / "train-00001-of-00002.parquet")
    files(test=[{"question": "1 + 1?", "answer": 2}])
    task = make_task("instruct", {"path": str(tmp_path)})
    assert sorted(task.splits()) == ["test", "train"]
    assert sorted(row["prompt"] for row in read(task, "train")) == sorted(row["prompt"] for row in rows[:5])
    told = read(task, "test")[0]
    assert {name: told[name] for name in ("prompt", "response", "answer", "metadata", "problem")} == {
        "prompt": "1 + 1?", "response": "2", "answer": "2", "metadata": "{}", "problem": None,
    }  # fmt: skip


LABELLED = {"prompt_template": "{text} Right?", "response_column": "label", "labels": {0: "no", 1: "yes"}}


def prompts(task, split):
    return [row["prompt"] for row in read(task, split)]


def test_prompts_of_labelled_rows_list_the_labels_of_train(files, tmp_path):
    files(
        train=[{"text": "a b", "label": n % 3} for n in range(9)],
        test=[{"text": "c d", "label": 7}],
    )
    task = make_task("instruct", {"path": str(tmp_path)})
    asked = "Choose the label of the text: 0, 1 or 2.\nlabel:"
    assert (prompts(task, "train")[0], prompts(task, "test")) == (f"a b\n\n{asked}", [f"c d\n\n{asked}"])
    plain = make_task("instruct", {"path": str(tmp_path)}, list_labels=False)
    assert prompts(plain, "test") == ["c d\n\nlabel:"]


@pytest.mark.parametrize(
    "labels",
    [["one"] * 9, [f"own {n}" for n in range(9)], [str(n % 21) for n in range(63)], ["long " * 20, "b"] * 4],
)
def test_labels_that_are_one_many_or_long_are_not_listed(files, tmp_path, labels):
    files(train=[{"text": "a b", "label": label} for label in labels])
    assert prompts(make_task("instruct", {"path": str(tmp_path)}), "train")[0] == "a b\n\nlabel:"


def test_labelled_rows_become_prompts_and_words(files, tmp_path):
    files(train=[{"text": "It rains.", "label": 1}, {"text": "It rain {x}.", "label": 0}])
    rows = read(make_task("instruct", {"path": str(tmp_path), **LABELLED}), "train")
    assert [(row["prompt"], row["response"], row["answer"]) for row in rows] == [
        ("It rains. Right?", "yes", "yes"),
        ("It rain {x}. Right?", "no", "no"),
    ]
