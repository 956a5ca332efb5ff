from __future__ import annotations

import pytest

from raylora.spec import from_dict
from raylora.spec.text import parse_value
from raylora.spec.written import written


def test_what_is_written_loads() -> None:
    spec = from_dict(parse_value(written(model="smollm2-135m", data="my.jsonl", task="instruct", budget="20m")))
    assert (spec.model, spec.task.path, spec.budget, spec.task.name) == ("smollm2-135m", "my.jsonl", "20m", "instruct")


def test_a_task_that_makes_its_rows_has_no_path() -> None:
    text = written(model="m", data="", task="reasoning_gym/chain_sum", budget="1h")
    assert from_dict(parse_value(text)).task.path is None


def test_what_is_left_out_is_planned() -> None:
    chosen = from_dict(parse_value(written(model="m", data="d", task="instruct", budget="1h"))).chosen()
    assert not chosen & {"search.trials", "task.proxy", "task.validation_rows", "train.samples", "space.batch_size"}


@pytest.mark.parametrize("path", ["a: b.jsonl", "*.jsonl", "#x", "yes", "12", "~/rows.csv", 'say "x".json', "a\\b"])
def test_values_that_yaml_would_misread_are_quoted(path) -> None:
    text = written(model="m", data=path, task="instruct", budget="1h")
    assert from_dict(parse_value(text)).task.path == path
