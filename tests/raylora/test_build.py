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


def test_a_head_of_labels_takes_metrics_that_can_mark_them(spec_of) -> None:
    task = build_task(spec_of(task__head="classifier", task__max_new_tokens=None))
    assert (task.metric, task.max_new_tokens, task.scoring.needs("validation")) == ("accuracy", 0, {"texts"})
    numbers = build_task(spec_of(task__head="regression", task__max_new_tokens=None, search__objective="loss"))
    assert (numbers.metric, numbers.mode) == ("validation_loss", "min")
    assert [one.key for one in numbers.scoring.measured] == ["pearson", "spearman", "validation_loss"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task__max_new_tokens": 4}, r"task.max_new_tokens: set, but task.head = classifier generates nothing"),
        ({"task__sampling": {"temperature": 0.5}}, r"task.sampling: set, but task.head = classifier"),
        ({"task__metrics": ["bleu"]}, r"task.metrics: 'bleu' cannot mark classes"),
        ({"task__metrics": ["pass@4"]}, r"task.metrics: pass_at_k has no programs to run"),
        ({"task__metrics": ["accuracy", "loss"], "search__objective": ["accuracy", "loss"]}, "the same better end"),
        ({"task__metrics": ["accuracy"], "search__objective": "rouge"}, r"task.metrics: 'rouge' cannot mark classes"),
        ({"resources__pack": 2}, r"resources.pack: 2: not with task.head = classifier; allowed: 1"),
        ({"resources__strategy": "deepspeed"}, r"resources.strategy: deepspeed: not with .* allowed: ddp"),
        ({"search__knowledge": {"curvature": True}}, r"search.knowledge.curvature: true: .* language models"),
    ],
)
def test_what_a_head_of_labels_cannot_do_is_one_line(spec_of, changes, told) -> None:
    with pytest.raises(UserError, match=told):
        build_task(spec_of(**{"task__head": "classifier", "task__max_new_tokens": None, **changes}))


def test_the_rows_of_a_head_of_labels_are_looked_at_as_it_reads_them(spec_of, tmp_path) -> None:
    from raylora.build import inspect_data
    from trainables.testing import make_tiny_encoder

    (tmp_path / "train.jsonl").write_text('{"sentence1": "a b", "sentence2": "c d", "label": true}\n' * 4)
    model = make_tiny_encoder(tmp_path / "bert", family="bert")
    told = inspect_data(spec_of(model=str(model), task={"path": str(tmp_path), "head": "classifier"}))
    assert told["splits"]["train"]["usable"] == 4  # type: ignore[index]
