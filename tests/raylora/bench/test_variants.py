from __future__ import annotations

import pytest
import torch

from raylora.bench.variants import LIMIT_S, THOROUGH, Effort, _arms, _rows, bench_variants, peak_bytes
from raylora.errors import UserError

MEGA = 2**20
CPU = torch.device("cpu")


def test_lora_comes_first_and_once() -> None:
    assert [arm.label for arm in _arms(["dora", "lora", "pissa:niter=2"])] == ["lora", "dora", "pissa:niter=2"]


def test_all_variants_are_measured_where_none_is_named() -> None:
    from trainables.variants import available

    names = set(available()) - {"loftq"}  # it wants a quantised base
    assert {arm.label for arm in _arms([])} == names
    labels = [arm.label for arm in _arms([], paper_sizes=True)]
    assert names < set(labels) and "hyper_adalora:preset=paper" in labels


def test_a_variant_is_measured_again_where_its_turns_differ_and_while_there_is_time() -> None:
    again = Effort(repetitions=3).again
    assert again([], 1.0, LIMIT_S) and again([1.0], 1.0, 0)  # everyone once, whatever it takes
    assert not again([1.0, 1.04], 1.0, 0) and again([1.0, 1.1], 1.0, 0)
    assert not again([1.0, 1.1], 1.0, LIMIT_S) and not again([1.0, 1.1, 1.2], 1.0, 0)
    assert not again([11.0], 1.0, 0)
    assert all(THOROUGH.again([1.0] * turns, 1.0, 10 * LIMIT_S) for turns in range(5))
    assert not THOROUGH.again([1.0] * 5, 1.0, 0) and not THOROUGH.again([11.0], 1.0, 0)


def test_an_unknown_variant_is_refused_before_a_model_is_read() -> None:
    with pytest.raises(UserError, match="--variants lroa: no such variant"):
        bench_variants("/nowhere", variants=["lroa"])


def test_peak_memory_is_what_is_alive_at_a_time_above_the_model() -> None:
    base = torch.nn.Linear(8, 8)

    def together() -> None:
        held = [torch.empty(MEGA, dtype=torch.uint8) for _ in range(3)]
        held.clear()

    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(MEGA, dtype=torch.uint8)
        base.weight.detach().view(-1)  # the model's own is not counted

    assert peak_bytes(together, CPU, base) == 3 * MEGA
    assert peak_bytes(one_after_the_other, CPU, base) == MEGA


def test_a_quarter_of_each_row_is_completion() -> None:
    rows = _rows(3, 16, vocabulary=50)
    assert [(len(row["prompt_ids"]), len(row["response_ids"])) for row in rows] == [(12, 4)] * 3
    assert rows == _rows(3, 16, vocabulary=50)
