from __future__ import annotations

import pytest
import torch

from trainables.decode import Decoded, generate_and_score_loss
from trainables.opening import common_start, read_opening
from trainables.protocols import Sampling
from trainables.testing import make_tiny_model, tokenised_rows


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def loaded(request, tmp_path_factory):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_tiny_model(tmp_path_factory.mktemp("opening") / request.param, family=request.param)
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def answered(model, rows, **options) -> Decoded:
    asked = {"sampling": Sampling(max_new_tokens=12), "max_tokens": 200, **options}
    return generate_and_score_loss(model, rows, pad_id=0, eos_ids=[], **asked)


def rows_with_opening(tokenizer, count: int = 6) -> list[dict]:
    opening = tokenizer("You are asked for sums, one after the other. ")["input_ids"]
    rows = tokenised_rows(tokenizer, count)
    return [{**row, "prompt_ids": opening + row["prompt_ids"] * (1 + place % 3)} for place, row in enumerate(rows)]


def test_prompts_that_begin_alike_are_answered_as_each_alone(loaded) -> None:
    model, tokenizer = loaded
    rows = rows_with_opening(tokenizer)
    limits = [3, 12, 7, 1, 12, 5]  # rows leave in between
    assert read_opening(model, [row["prompt_ids"] for row in rows], "cpu") is not None
    together = answered(model, rows, limits=limits)
    for place, row in enumerate(rows):
        alone = answered(model, [row], limits=limits[place : place + 1])
        assert together.answers[place] == alone.answers[0]
        assert together.losses[place] == pytest.approx(alone.losses[0], rel=1e-4)


def test_the_opening_is_read_once_for_all(loaded) -> None:
    model, tokenizer = loaded
    rows, read = rows_with_opening(tokenizer), []
    with_opening = len(rows[0]["prompt_ids"])
    handle = model.register_forward_pre_hook(
        lambda _, args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    answered(model, rows, sampling=Sampling(max_new_tokens=1), max_tokens=4096)
    handle.remove()
    assert sum(read) < sum(len(row["prompt_ids"]) for row in rows) and with_opening > read[0] > 8


def test_short_openings_and_few_prompts_are_read_as_they_are(loaded) -> None:
    model, tokenizer = loaded
    prompts = [row["prompt_ids"] for row in rows_with_opening(tokenizer)]
    assert read_opening(model, prompts[:3], "cpu") is None
    assert read_opening(model, [[1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 2, 6]], "cpu") is None


def test_every_prompt_keeps_a_token_behind_the_common_start() -> None:
    assert common_start([[1, 2, 3, 4], [1, 2, 3, 5]]) == 3
    assert common_start([[1, 2, 3], [1, 2, 3]]) == 2
    assert common_start([torch.tensor([1, 2]).numpy(), [3, 2]]) == 0
    assert common_start([[7], [7, 8]]) == 0
