from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.tasks.base import Task, check_positive


class Plain(Task):
    """Neither metrics nor a score."""

    name = "plain"
    max_new_tokens = 7
    stop = ("end",)

    def splits(self):
        return {}


class Scored(Plain):
    def score(self, completions, rows):
        return [1.0 for _ in completions]


def test_a_task_without_metrics_scores_itself_or_says_that_it_does_not() -> None:
    with pytest.raises(NotImplementedError, match="Plain has neither default_metrics nor a score"):
        Plain().score(["a"], [{}])
    assert Scored().aim().metric == "accuracy"


def test_another_aim_starts_from_the_tasks_own(monkeypatch) -> None:
    task = Scored()
    task.aim(["perplexity"])
    assert (task.metric, task.mode) == ("perplexity", "min")
    task.aim()
    assert (task.metric, task.mode, task.worst) == ("accuracy", "max", 0.0)


def test_answers_are_as_long_and_end_as_the_task_says() -> None:
    sampling = Plain().sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.stop) == (7, 0.0, ("end",))


@pytest.mark.parametrize("value", [0, -1, True, 2.0])
def test_a_number_of_rows_is_whole_and_positive(value) -> None:
    with pytest.raises(UserError, match=r"task\.test_rows: .* is not a positive whole number"):
        check_positive("test_rows", value)
    check_positive("test_rows", None)
