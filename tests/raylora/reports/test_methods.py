"""Which configurations are one method, and what methods are called."""

from __future__ import annotations

from raylora.reports.methods import method_names, method_of

LORA = {"variant": "lora", "rank": 8, "alpha_ratio": 2, "batch_size": 8, "dropout": 0.0, "learning_rate": 1e-3}


def names(*configs: dict[str, object]) -> list[str]:
    return list(method_names(configs).values())


def test_configurations_that_differ_in_the_rate_alone_are_one_method() -> None:
    assert names(LORA, LORA | {"learning_rate": 1e-2}) == ["lora"]


def test_alpha_is_the_same_however_it_is_given() -> None:
    given = {name: value for name, value in LORA.items() if name != "alpha_ratio"} | {"alpha": 16}
    assert method_of(LORA) == method_of(given)


def test_options_are_always_told_and_knobs_where_methods_differ_in_them() -> None:
    policy = LORA | {"variant": "lelora", "policy": "random", "a": 1}
    assert names(LORA, policy) == ["lora", "lelora (a=1, policy=random)"]
    assert names(LORA, policy | {"dropout": 0.1}) == ["lora (dropout=0)", "lelora (a=1, policy=random, dropout=0.1)"]


def test_alpha_is_told_where_it_does_not_go_with_the_rank() -> None:
    assert names(LORA, LORA | {"rank": 16}) == ["lora (rank=8)", "lora (rank=16)"]
    assert names(LORA, LORA | {"alpha_ratio": 1}) == ["lora (alpha=16)", "lora (alpha=8)"]


def test_the_lora_to_compare_with_has_the_same_knobs() -> None:
    assert method_of(LORA | {"variant": "pissa", "niter": 2}).plain == method_of(LORA)
    assert method_of(LORA | {"variant": "pissa", "rank": 4}).plain != method_of(LORA)
