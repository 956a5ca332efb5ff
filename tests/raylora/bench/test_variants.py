from __future__ import annotations

import pytest
import torch

from raylora.bench.variants import _arms, _rows, bench_variants, peak_bytes
from raylora.errors import UserError

MEGA = 2**20
CPU = torch.device("cpu")


def test_lora_comes_first_and_once() -> None:
    assert [arm.label for arm in _arms(["dora", "lora", "pissa:niter=2"])] == ["lora", "dora", "pissa:niter=2"]


def test_all_variants_are_measured_where_none_is_named() -> None:
    from trainables.variants import available

    labels = [arm.label for arm in _arms([])]
    assert set(available()) < set(labels) and "hyper_adalora:preset=paper" in labels


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
