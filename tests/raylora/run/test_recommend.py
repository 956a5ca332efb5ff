from __future__ import annotations

import json

import pytest

from raylora.errors import UserError
from raylora.run.recommend import recommend
from tests.raylora.run.test_sizes import DENSE


@pytest.fixture
def model(tmp_path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    return str(tmp_path)


def test_the_rate_lies_in_its_interval_and_has_reasons(model) -> None:
    found = recommend(model, samples=100_000)
    assert found.low < found.recipe["learning_rate"] < found.high
    assert found.recipe["batch_size"] == 128 and any("rank" in reason for reason in found.reasons)


def test_rows_are_counted_where_samples_are_not_told(model, tmp_path) -> None:
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "response": "b"}\n' * 7)
    found = recommend(model, data=str(tmp_path / "train.jsonl"))
    assert found.about["samples"] == 7 and found.recipe["batch_size"] == 4


def test_what_is_fixed_stays(model) -> None:
    recipe = recommend(model, rank=4, alpha=8.0, batch_size=2, variant="pissa").recipe
    assert [recipe[name] for name in ("rank", "alpha", "batch_size", "variant")] == [4, 8.0, 2, "pissa"]


def test_no_rank_is_larger_than_the_narrowest_matrix(tmp_path) -> None:
    small = {**DENSE, "hidden_size": 128, "num_attention_heads": 8, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(small))
    assert recommend(str(tmp_path)).recipe["rank"] == 32


@pytest.mark.parametrize(
    ("given", "told"), [({"variant": "lara"}, "--variant: 'lara'"), ({"samples": 0}, "--samples: 0; allowed: above 0")]
)
def test_a_mistake_is_named(model, given, told) -> None:
    with pytest.raises(UserError, match=told):
        recommend(model, **given)
