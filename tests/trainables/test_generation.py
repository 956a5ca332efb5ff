"""Many rows that are continued together, against each one alone."""

from __future__ import annotations

import pytest
import torch

from trainables.decode import generate_and_score_loss
from trainables.generation import ROOM, GrowingLayer
from trainables.protocols import Sampling
from trainables.testing import make_tiny_model, tokenised_rows

LIMITS = [7, 1, 3, 9, 2, 9, 5, 4]


def load(folder, family):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = make_tiny_model(folder / family, family=family)
    return AutoModelForCausalLM.from_pretrained(made).eval(), AutoTokenizer.from_pretrained(made)


def sliding_model(vocabulary):
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=["llama", "gpt2", "sliding"])
def loaded(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generation")
    if request.param != "sliding":
        return load(folder, request.param)
    tokenizer = load(folder, "llama")[1]
    return sliding_model(len(tokenizer)), tokenizer


def rows_of(tokenizer):
    rows = tokenised_rows(tokenizer, len(LIMITS))
    return [{**row, "prompt_ids": list(row["prompt_ids"]) * (1 + i % 3)} for i, row in enumerate(rows)]


def answers(model, rows, limits=None, **more):
    options = {"pad_id": 0, "eos_ids": [], "sampling": Sampling(9), **more}
    return [each[0] for each in generate_and_score_loss(model, rows, limits=limits, **options).answers]


def test_rows_that_leave_change_nothing_for_those_that_stay(loaded) -> None:
    model, tokenizer = loaded
    rows = rows_of(tokenizer)
    together = answers(model, rows, LIMITS, max_tokens=100)
    alone = [answers(model, [row])[0] for row in rows]
    assert together == [ids[:limit] for ids, limit in zip(alone, LIMITS, strict=True)]


def test_answers_go_on_beyond_the_room_of_the_first_buffer(loaded) -> None:
    model, tokenizer = loaded
    longest = ROOM + 10
    rows, limits = rows_of(tokenizer)[:3], [longest, 4, longest]
    found = answers(model, rows, limits, sampling=Sampling(longest))
    assert list(map(len, found)) == limits
    assert found[2] == answers(model, rows[2:], sampling=Sampling(longest))[0]


def test_answers_that_reach_their_limit_are_counted_and_those_that_end_are_not(loaded) -> None:
    model, tokenizer = loaded
    rows = rows_of(tokenizer)
    options = {"pad_id": 0, "sampling": Sampling(5)}
    free = generate_and_score_loss(model, rows, eos_ids=[], **options)
    assert free.cut == len(rows)
    end = free.answers[0][0][2]
    ended = generate_and_score_loss(model, rows, eos_ids=[end], **options)
    assert ended.cut == sum(end not in answers[0] for answers in free.answers) < len(rows)
    said = generate_and_score_loss(model, rows, eos_ids=[], ended=lambda ids: ids[-1] == end, **options)
    assert said.cut == sum(end not in answers[0] for answers in free.answers)
    assert said.answers[0][0][-1] == end


def test_a_buffer_is_written_in_place_until_it_is_full() -> None:
    keys = torch.arange(8.0).view(2, 1, 4, 1)
    layer = GrowingLayer.joined([(keys, keys), (keys[:1, :, 2:], keys[:1, :, 2:])], 1)
    assert layer.keys[2, 0, :, 0].tolist() == [0, 0, 2, 3]
    place = layer.keys.data_ptr()
    seen, _ = layer.update(torch.full((3, 1, 1, 1), 9.0), torch.full((3, 1, 1, 1), 9.0))
    assert seen.data_ptr() == place and layer.get_seq_length() == 5
    layer.keep(torch.tensor([0]), torch.tensor([2]), 2, 3)
    assert layer.keys[:, 0, :, 0].tolist() == [[2, 3, 9], [6, 7, 9]]
    grown, _ = layer.update(torch.ones(2, 1, ROOM, 1), torch.ones(2, 1, ROOM, 1))
    assert grown.shape[2] == 3 + ROOM and grown[0, 0, :3, 0].tolist() == [2, 3, 9]
