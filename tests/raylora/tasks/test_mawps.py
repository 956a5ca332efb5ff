from __future__ import annotations

from raylora.tasks import make_task


def test_the_final_number_counts(files, rows_of, figures) -> None:
    rows = [{"question": "Two and two ?", "equation": "X=2.0+2.0", "answer": "4"}] * 2
    task = make_task("mawps", path=str(files(train=rows, test=rows)))
    assert figures(task, "test", ["There are 4.0 apples.", "five"], rows_of(task, "test"))["accuracy"] == 0.5


def test_a_worked_output_is_what_is_trained_on(files, rows_of) -> None:
    row = {"instruction": "Two and two?", "output": "2 + 2 = 4", "answer": 4.0}
    found = rows_of(make_task("mawps", path=str(files(train=[row]))), "train")[0]
    assert (found["response"], found["answer"]) == ("2 + 2 = 4", "4.0")
