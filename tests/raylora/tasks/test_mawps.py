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


def test_numbers_that_the_hub_keeps_apart_are_put_in_their_places(files, rows_of) -> None:
    raw = {"Question": "N_00 cups and N_01 cups ?", "Numbers": "8.0 2.5", "Equation": "+ N_00 N_01", "Answer": 10.5}
    found = rows_of(make_task("mawps", path=str(files(train=[raw, {**raw, "Numbers": "8.0"}]))), "train")
    assert (found[0]["prompt"], found[0]["answer"]) == ("8 cups and 2.5 cups ?", "10.5")
    assert found[1]["problem"] == "broken: no number for N_01"


def test_the_story_of_svamp_stands_before_its_question(files, rows_of) -> None:
    raw = {"Body": "There are 4 cups.", "Question": "How many are 2 more?", "Answer": 6.0, "Type": "Addition"}
    found = rows_of(make_task("mawps", path=str(files(train=[raw]))), "train")[0]
    assert (found["prompt"], found["answer"]) == ("There are 4 cups. How many are 2 more?", "6")
