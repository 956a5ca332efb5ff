from __future__ import annotations

from typing import Any

import pytest

from raylora.build import build_task, max_length, threads_per_host, train_settings, worker_group
from raylora.errors import UserError
from raylora.spec import Spec, load


@pytest.fixture
def spec_of(write_spec):
    def make(**changes: Any) -> Spec:
        return load(write_spec(**changes))

    return make


def test_a_task_gets_its_rows_and_the_length_of_its_answers(spec_of, sums) -> None:
    task = build_task(spec_of(task__train_rows=20, task__test_rows=4))
    assert (task.metric, task.train_rows, task.test_rows, task.max_new_tokens) == ("accuracy", 20, 4, 4)


def test_a_tasks_own_seed_wins_over_the_specs(spec_of) -> None:
    def rows(**changes: Any) -> list[dict[str, Any]]:
        task = {"name": "reasoning_gym/chain_sum", "train_rows": 20, "test_rows": 4, "validation_rows": 8, **changes}
        return list(build_task(spec_of(task=task, seed=1)).splits()["train"]())

    assert rows(options={"seed": 2}) != rows()
    assert rows(options={"seed": 1}) == rows()


def test_an_option_given_twice_is_refused(spec_of, sums) -> None:
    with pytest.raises(UserError, match=r"task\.path: given twice"):
        build_task(spec_of(task__options={"path": str(sums)}))


def test_a_trials_budget_counts_the_rows_of_the_proxy(spec_of) -> None:
    assert train_settings(spec_of(train__epochs=3), 20).samples == 60


def test_hosts_share_the_cores_unless_told(spec_of) -> None:
    assert threads_per_host(spec_of(resources={"cpus_per_host": 3})) == 3
    assert threads_per_host(spec_of(resources={"hosts": 10_000})) == 1


def test_one_worker_needs_no_group_and_two_form_one(spec_of) -> None:
    assert worker_group(spec_of()) is None
    group = worker_group(spec_of(resources={"workers": 2}))
    assert group is not None and (group.workers, group.strategy) == (2, "ddp")


def test_rows_longer_than_the_models_positions_are_refused_before_training(spec_of, tiny_model) -> None:
    assert max_length(spec_of(), str(tiny_model)) == 512
    with pytest.raises(UserError, match=r"task.max_length = 513: the model has 512 positions; allowed: at most 512"):
        max_length(spec_of(task__max_length=513), str(tiny_model))
