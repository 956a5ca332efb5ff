from __future__ import annotations

from raylora.metrics import OptionScores
from raylora.tasks import make_task
from trainables.protocols import Outputs

ASKED = "Please choose the correct answer to the question: Up?\n\nAnswer1: sky Answer2: sea\n\nAnswer format: "
PIQA = {"instruction": "How?\n\nSolution1: a Solution2: b\n\nAnswer format: solution1/solution2", "input": ""}
PIQA |= {"output": "the correct answer is solution1", "answer": "solution1"}
ARC = {"instruction": f"{ASKED}answer1/answer2", "input": "", "output": "the correct answer is answer2"}
ARC |= {"answer": "answer2"}
BOOLQ = {"instruction": "Is it?\n\nAnswer format: true/false", "output": "the correct answer is true", "answer": "true"}


def test_train_is_the_union_and_each_set_is_a_test_set(files, rows_of) -> None:
    folder = files(piqa__train=[PIQA], piqa__test=[PIQA], **{"ARC-Easy__train": [ARC], "ARC-Easy__test": [ARC]})
    task = make_task("commonsense", path=str(folder))
    assert list(task.splits()) == ["train", "test.piqa", "test.arc_easy"]
    assert sorted(row["answer"] for row in rows_of(task, "train")) == ["answer2", "solution1"]
    assert rows_of(task, "test.piqa")[0]["metadata"] == {"choices": ["solution1", "solution2"]}


def test_a_joined_file_is_preferred_for_training(files, rows_of) -> None:
    folder = files(commonsense_170k=[BOOLQ], piqa__train=[PIQA], piqa__test=[PIQA])
    assert [row["answer"] for row in rows_of(make_task("commonsense", path=str(folder)), "train")] == ["true"]


def test_the_answer_is_read_in_what_is_generated(files, rows_of, figures) -> None:
    folder = files(boolq__train=[BOOLQ], boolq__test=[BOOLQ] * 3)
    task = make_task("commonsense", path=str(folder))
    answers = ["the correct answer is true", "false", "I cannot say"]
    assert abs(figures(task, "test.boolq", answers, rows_of(task, "test.boolq"))["accuracy"] - 1 / 3) < 1e-9


def test_by_likelihood_nothing_is_generated(files, rows_of) -> None:
    folder = files(boolq__train=[BOOLQ], boolq__test=[BOOLQ])
    task = make_task("commonsense", {"how": "likelihood"}, path=str(folder))
    assert task.scoring.needs("test.boolq") == {"options"}
    outputs = Outputs(options=[{"accuracy": OptionScores((-1.0, -2.0), (4, 4))}])
    marks = task.scoring.marks("test.boolq", outputs, rows_of(task, "test.boolq"))
    assert task.scoring.figures("test.boolq", marks)["accuracy"] == 1.0


def test_a_row_without_its_answers_is_told(files, rows_of) -> None:
    folder = files(boolq__train=[{**BOOLQ, "instruction": "Is it?"}], boolq__test=[BOOLQ])
    assert "Answer format" in rows_of(make_task("commonsense", path=str(folder)), "train")[0]["problem"]
