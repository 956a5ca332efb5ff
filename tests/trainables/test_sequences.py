from __future__ import annotations

import pytest
import torch

from trainables.batching import IGNORE, length
from trainables.sequences import check_apart, collate_packed, fill, packed_micro_batches, packed_size


def row(prompt: int, response: int, first: int = 1) -> dict:
    ids = list(range(first, first + prompt + response))
    return {"prompt_ids": ids[:prompt], "response_ids": ids[prompt:]}


def test_rows_share_sequences_as_long_as_the_longest() -> None:
    rows = [row(6, 2), row(4, 1), row(2, 2), row(2, 1), row(2, 1)]
    sequences, left = fill(rows, 3)
    assert [[length(one) for one in sequence] for sequence in sequences] == [[8], [5, 3], [4, 3]]
    assert left == []


def test_groups_hold_each_row_once_and_stay_within_the_bound() -> None:
    rows = [row(1 + index % 7, 1 + index % 3) for index in range(40)]
    groups = packed_micro_batches(rows, 30)
    assert sorted(id(one) for group in groups for one in group) == sorted(map(id, rows))
    for group in groups:
        count, width = packed_size(group)
        assert collate_packed(group, 0).inputs["input_ids"].shape == (count, width)
        assert count * width <= 30


def test_labels_stand_after_the_positions_that_predict_them() -> None:
    batch = collate_packed([row(3, 2, first=10), row(2, 1, first=20), row(1, 1, first=30)], pad_id=0)
    assert batch.inputs["input_ids"].tolist() == [[10, 11, 12, 13, 14], [20, 21, 22, 30, 31]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]
    assert batch.positions.tolist() == [1, 2, 3]
    assert batch.labels.tolist() == [[IGNORE, 13, 14], [22, IGNORE, 31]]
    assert batch.tokens == 4


def test_a_model_that_mixes_the_rows_of_a_sequence_is_refused(loaded) -> None:
    model, _ = loaded
    check_apart(model)

    class Mixing(torch.nn.Module):
        """Reads a sequence from left to right, whatever its positions say."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(8, 8)

        def forward(self, input_ids: torch.Tensor, **_: object) -> object:
            return type("Out", (), {"logits": self.embedding(input_ids).cumsum(1)})

    with pytest.raises(ValueError, match=r"train.pack_sequences: Mixing does not keep the rows .* apart"):
        check_apart(Mixing())
