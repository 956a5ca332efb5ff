from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.tasks import make_task

PROBLEMS = [
    {"problem": "1/2 + 0?", "solution": r"It is $\boxed{\frac{1}{2}}$.", "level": "Level 1", "type": "Algebra"},
    {"problem": "2 + 2?", "solution": r"It is $\boxed{4}$.", "level": "Level 5", "type": "Algebra"},
]


def test_answers_count_by_meaning_and_by_level_and_subject(files, rows_of, figures) -> None:
    task = make_task("math", path=str(files(train=PROBLEMS, test=PROBLEMS)))
    rows = rows_of(task, "test")
    found = figures(task, "test", [r"So \boxed{0.5}", r"\boxed{5}"], rows)
    assert found["accuracy"] == 0.5
    assert found["accuracy[level=Level 1]"] == 1.0 and found["accuracy[level=Level 5]"] == 0.0
    assert found["rows[subject=Algebra]"] == 2


def test_the_other_published_columns_are_read_and_an_empty_answer_is_taken_from_the_solution(files, rows_of) -> None:
    row = {"prompt": "1 + 1?", "response": r"\boxed{2}", "answer": "", "level": "Level 1", "type": "Algebra"}
    assert rows_of(make_task("math", path=str(files(train=[row]))), "train")[0]["answer"] == r"\boxed{2}"


def test_missing_columns_are_one_line(files) -> None:
    task = make_task("math", path=str(files(train=[{"a": 1}])))
    with pytest.raises(UserError, match=r"the rows of math need the columns problem and solution, or .*present: a"):
        next(task.splits()["train"].tables())


def test_columns_can_be_named(files, rows_of) -> None:
    task = make_task("math", path=str(files(train=[{"q": "1?", "s": "1"}])), columns={"problem": "q", "solution": "s"})
    assert rows_of(task, "train")[0]["prompt"] == "1?"


def test_alpacas_frame_is_put_around_the_problem(files, rows_of) -> None:
    task = make_task("math", {"form": "alpaca"}, path=str(files(train=PROBLEMS)))
    prompt = rows_of(task, "train")[1]["prompt"]
    assert prompt.startswith("Below is an instruction") and prompt.endswith("2 + 2?\n\n### Response:")
