from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.tasks import make_task

META = [{"query": "2 + 2?", "response": "2 + 2 = 4\nThe answer is: 4", "type": "GSM_Rephrased"}]
GSM8K = [{"question": "3 + 4?", "answer": "3 + 4 = 7\n#### 7"}]
MATH = [{"problem": "Half?", "solution": r"\boxed{\frac12}", "level": "Level 2", "type": "Algebra"}]


@pytest.fixture
def task(files):
    return make_task("metamath", path=str(files(metamath__train=META, gsm8k__test=GSM8K, math__test=MATH)))


def test_train_is_metamath_and_each_test_set_has_its_own_metric(task, rows_of, figures) -> None:
    assert list(task.splits()) == ["train", "test.gsm8k", "test.math"]
    assert rows_of(task, "train")[0]["answer"] == "4"
    assert figures(task, "test.gsm8k", ["It is 7"], rows_of(task, "test.gsm8k"))["number"] == 1.0
    found = figures(task, "test.math", ["The answer is: 0.5"], rows_of(task, "test.math"))
    assert found["math"] == 1.0 and found["math[level=Level 2]"] == 1.0 and "number" not in found


def test_validation_has_both(task, rows_of, figures) -> None:
    assert {"number", "math"} <= set(figures(task, "validation", ["4"], rows_of(task, "train")))


def test_a_single_file_to_train_on_asks_for_the_test_sets(files) -> None:
    path = files(train=META) / "train.jsonl"
    with pytest.raises(UserError, match=r"task.test_sets: metamath measures gsm8k, math; give their files"):
        make_task("metamath", path=str(path))


def test_one_test_set_alone_is_enough(files) -> None:
    folder = files(train=META, gsm8k=GSM8K)
    sets = {"gsm8k": str(folder / "gsm8k.jsonl")}
    task = make_task("metamath", path=str(folder / "train.jsonl"), test_sets=sets)
    assert task.test_sets == ("gsm8k",) and task.metric == "accuracy"


def test_an_unknown_test_set_is_refused(files) -> None:
    path = str(files(train=META) / "train.jsonl")
    with pytest.raises(UserError, match=r"task.test_sets.gsm9k: .* no such test set; it has gsm8k, math"):
        make_task("metamath", path=path, test_sets={"gsm9k": path})
