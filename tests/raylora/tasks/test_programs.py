from __future__ import annotations

import pytest

from raylora.data.identity import task_hash
from raylora.errors import UserError
from raylora.tasks import make_task
from raylora.tasks.sandbox import kinds, unsafe_code
from trainables.protocols import Outputs

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """Sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function to double a number.",
    "code": "def double(n):\r\n    return 2 * n",
    "test_list": ["assert double(2) == 4"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
FEEDBACK = {"query": "Double a number.", "answer": "```python\ndef double(n):\n    return 2 * n\n```"}


@pytest.fixture
def folder(files):
    return files(train=[FEEDBACK], humaneval__test=[HUMANEVAL], mbpp__train=[MBPP], mbpp__test=[MBPP])


def test_code_feedback_runs_the_tests_of_both_sets(folder, rows_of, figures) -> None:
    sets = {name: str(folder / name) for name in ("humaneval", "mbpp")}
    task = make_task("code_feedback", train=str(folder / "train.jsonl"), test_sets=sets)
    assert task.notes[0].startswith("sandbox: ")
    rows = rows_of(task, "test.humaneval")
    assert rows[0]["prompt"] == HUMANEVAL["prompt"]
    assert figures(task, "test.humaneval", ["    return a + b\n"], rows)["pass@1"] == 1.0
    assert figures(task, "test.humaneval", ["    return a - b\n"], rows)["pass@1"] == 0.0
    assert figures(task, "test.mbpp", ["def double(n):\n    return n + n\n"], rows_of(task, "test.mbpp"))["pass@1"] == 1


def test_trials_of_code_feedback_go_by_the_loss(folder) -> None:
    task = make_task("code_feedback", train=str(folder / "train.jsonl"), test_sets={"mbpp": str(folder / "mbpp")})
    assert task.metric == "validation_loss" and task.scoring.needs("validation") == {"losses"}


def test_mbpp_trains_on_its_own_rows_in_the_published_prompt(folder, rows_of) -> None:
    task = make_task("mbpp", path=str(folder / "mbpp"))
    row = rows_of(task, "train")[0]
    assert row["prompt"].startswith("You are an expert Python programmer") and row["prompt"].endswith("[BEGIN]\n")
    assert row["response"] == "def double(n):\n    return 2 * n"
    assert task.metric == "pass@1" and task.sampling.stop == ("[DONE]",)


def test_evalplus_tests_of_mbpp_are_kept(files, rows_of) -> None:
    plus = {key: MBPP[key] for key in ("task_id", "code", "test_list")}
    plus |= {"prompt": "Double it.", "test_imports": [], "test": "assert double(8) == 16"}
    task = make_task("mbpp", path=str(files(train=[MBPP])), test=str(files(mbppplus__test=[plus]) / "mbppplus"))
    assert rows_of(task, "test")[0]["metadata"]["test"] == plus["test"]


def test_mbpp_rows_without_tests_are_told(files, rows_of) -> None:
    rows = [{**MBPP, "test_list": tests} for tests in (None, [], "assert double(2) == 4", '["assert double(2) == 4"]')]
    found = rows_of(make_task("mbpp", path=str(files(train=[MBPP], test=rows))), "test")
    assert [row["problem"] for row in found] == [
        "broken: no tests", "broken: no tests", "broken: test_list is no list", None,
    ]  # fmt: skip


def test_the_published_worked_examples_stand_before_the_question(files, rows_of) -> None:
    examples = [{**MBPP, "task_id": number, "text": f"Task {number}."} for number in (1, 2, 3, 4)]
    folder = files(mbpp__train=[MBPP], mbpp__test=[MBPP], mbpp__prompt=examples, train=[FEEDBACK])
    plain, asked = (make_task("mbpp", path=str(folder / "mbpp"), shots=shots) for shots in (0, 3))
    prompt = rows_of(asked, "test")[0]["prompt"]
    assert [prompt.count(f"Task {number}.") for number in (1, 2, 3, 4)] == [0, 1, 1, 1]
    assert prompt.endswith(rows_of(plain, "test")[0]["prompt"]) and prompt.count("[DONE]") == 3
    assert task_hash(plain) != task_hash(asked)
    feedback = make_task(
        "code_feedback", path=str(folder / "train.jsonl"), test_sets={"mbpp": str(folder / "mbpp")}, shots=3
    )
    assert rows_of(feedback, "test.mbpp")[0]["prompt"] == prompt


def test_worked_examples_that_are_not_there_are_one_line(folder) -> None:
    with pytest.raises(UserError, match=r"task\.options\.shots: no worked examples with task_id 2, 3, 4; put MBPP's"):
        make_task("mbpp", path=str(folder / "mbpp"), shots=3)
    with pytest.raises(UserError, match=r"task\.options\.shots: 2 is not allowed; give 0, or 3"):
        make_task("mbpp", path=str(folder / "mbpp"), shots=2)


def test_several_samples_take_a_temperature(folder) -> None:
    task = make_task("mbpp", path=str(folder / "mbpp"))
    with pytest.raises(UserError, match=r"task.sampling.temperature: 0 gives the same answer 2 times"):
        task.aim([{"pass@k": {"k": [1, 2]}}])


def test_every_k_is_told(folder, rows_of) -> None:
    from trainables.protocols import Sampling

    task = make_task("mbpp", path=str(folder / "mbpp"))
    scoring = task.aim([{"pass@k": {"k": [1, 2]}}], sampling=Sampling(16, temperature=0.8))
    assert scoring.sampling.n == 2
    outputs = Outputs(texts=[[MBPP["code"], "def double(n):\n    return 0\n"]])
    found = scoring.figures("test", scoring.marks("test", outputs, rows_of(task, "test")))
    assert (found["pass@1"], found["pass@2"]) == (0.5, 1.0)


def test_without_a_sandbox_it_is_refused_in_a_line_unless_unsafe_code_is_said(folder, monkeypatch) -> None:
    monkeypatch.setattr(kinds, "lacks", lambda kind: "not here")
    with pytest.raises(UserError, match=r"sandbox: code cannot be run here .*--unsafe-code") as caught:
        make_task("mbpp", path=str(folder / "mbpp"))
    assert "\n" not in str(caught.value)
    with unsafe_code():
        assert make_task("mbpp", path=str(folder / "mbpp")).notes == (
            "sandbox: none; programs run as you (--unsafe-code)",
        )
