from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.tasks import make_task

IFEVAL = {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": "[{}]"}
OWN = {"instruction": "Say hello.", "output": "hello"}


@pytest.fixture
def task(files):
    folder = files(own=[OWN], ifeval=[IFEVAL] * 2)
    return make_task("ifeval", train=str(folder / "own.jsonl"), test_sets={"ifeval": str(folder / "ifeval.jsonl")})


def test_own_rows_are_trained_on_and_ifeval_measured(task, rows_of, figures) -> None:
    assert rows_of(task, "train")[0]["response"] == "hello"
    found = figures(task, "test.ifeval", ["none", "a, b"], rows_of(task, "test.ifeval"))
    assert found["ifeval"] == 0.5 and found["ifeval.instruction_loose"] == 0.5


def test_trials_go_by_the_loss_since_rows_of_train_have_no_instructions_to_check(task) -> None:
    assert (task.metric, task.mode) == ("validation_loss", "min")
    assert task.scoring.needs("validation") == {"losses"}
    with pytest.raises(UserError, match=r"search.objective: 'ifeval' cannot be had on validation rows"):
        task.aim(objective="ifeval")


def test_rows_to_train_on_must_be_given() -> None:
    with pytest.raises(UserError, match=r"task.path: ifeval needs it"):
        make_task("ifeval")


def test_arguments_that_are_no_list_are_the_rows_problem(files, rows_of) -> None:
    folder = files(own=[OWN], ifeval=[{**IFEVAL, "kwargs": "{no json"}, {**IFEVAL, "kwargs": {"a": 1}}])
    task = make_task("ifeval", train=str(folder / "own.jsonl"), test_sets={"ifeval": str(folder / "ifeval.jsonl")})
    assert {row["problem"] for row in rows_of(task, "test.ifeval")} == {"broken: kwargs is no list"}
