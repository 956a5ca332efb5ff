from __future__ import annotations

import torch

from trainables.batching import IGNORE, collate, count_steps, global_batches, micro_batches


def row(prompt: int, response: int) -> dict:
    return {"prompt_ids": list(range(1, prompt + 1)), "response_ids": list(range(50, 50 + response))}


def test_labels_cover_the_completion_only_and_align_with_the_end() -> None:
    batch = collate([row(3, 1), row(5, 2)], pad_id=0)
    assert batch.inputs["input_ids"].tolist() == [[0, 0, 0, 1, 2, 3, 50], [1, 2, 3, 4, 5, 50, 51]]
    assert batch.labels.tolist() == [[IGNORE, 50], [50, 51]]
    assert batch.inputs["position_ids"][0, 3:].tolist() == [0, 1, 2, 3]
    assert batch.tokens == 3


def test_every_batch_together_visits_exactly_the_budget() -> None:
    for batch_size in (1, 4, 7, 256):
        batches = list(global_batches(10, batch_size, 33, seed=1))
        assert sum(map(len, batches)) == 33
        assert len(batches) == count_steps(batch_size, 33)


def test_an_epoch_visits_each_row_once_whatever_the_batch_size() -> None:
    small = [i for b in global_batches(10, 3, 20, seed=5) for i in b]
    large = [i for b in global_batches(10, 20, 20, seed=5) for i in b]
    assert small == large
    assert sorted(small[:10]) == sorted(small[10:]) == list(range(10))


def test_micro_batches_respect_the_token_bound_and_keep_every_row() -> None:
    rows = [row(n % 7 + 1, 2) for n in range(20)]
    groups = micro_batches(rows, max_tokens=24)
    assert sum(map(len, groups)) == 20
    for group in groups:
        assert len(group) * collate(group, 0).inputs["input_ids"].shape[1] <= 24
    assert [len(g) for g in micro_batches([row(99, 1)], max_tokens=10)] == [1]


def test_padding_positions_do_not_change_a_rows_logits(tiny_model) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    long, short = row(12, 2), row(4, 2)
    with torch.no_grad():
        both = model(**collate([long, short], 0).inputs).logits[1, -6:]
        alone = model(**collate([short], 0).inputs).logits[0, -6:]
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)


def test_earlier_turns_that_are_trained_on_have_labels_at_their_places() -> None:
    turns = {**row(6, 2), "prompt_trained": [1, 3, 4, 5]}
    batch = collate([turns, row(2, 1)], pad_id=0)
    assert batch.inputs["input_ids"][0].tolist() == [1, 2, 3, 4, 5, 6, 50, 51]
    assert batch.labels.tolist() == [[2, 3, IGNORE, 5, IGNORE, 50, 51], [IGNORE] * 6 + [50]]
    assert batch.tokens == 6
    assert len(batch.positions) == batch.labels.shape[1]
