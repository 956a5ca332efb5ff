from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from trainables.decode import generate_and_score_loss, mean_loss, mean_loss_and_gradients
from trainables.protocols import Sampling
from trainables.testing import make_tiny_model, tokenised_rows
from trainables.variants.core.tiny import make_base, make_batches


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def loaded(request, tmp_path_factory):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_tiny_model(tmp_path_factory.mktemp("decode") / request.param, family=request.param)
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_equals_one_row_at_a_time_without_a_cache(loaded) -> None:
    model, tokenizer = loaded
    rows = tokenised_rows(tokenizer, 7)
    rows[0] = {**rows[0], "prompt_ids": rows[0]["prompt_ids"] * 3}
    decoded = generate_and_score_loss(
        model, rows, pad_id=0, eos_ids=[tokenizer.eos_token_id], sampling=Sampling(max_new_tokens=5), max_tokens=120
    )
    got = [answers[0] for answers in decoded.answers]
    expected_loss = 0.0
    for row, completion in zip(rows, got, strict=True):
        ids = list(row["prompt_ids"])
        answer = []
        for _ in range(5):
            with torch.no_grad():
                token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            answer.append(token)
            ids.append(token)
        assert completion == answer
        whole = torch.tensor([list(row["prompt_ids"]) + list(row["response_ids"])])
        n = len(row["response_ids"])
        with torch.no_grad():
            logits = model(whole).logits[0, -n - 1 : -1]
        expected_loss += float(F.cross_entropy(logits, whole[0, -n:], reduction="sum"))
    assert decoded.tokens == [len(row["response_ids"]) for row in rows]
    assert decoded.loss_sum == pytest.approx(expected_loss, rel=1e-4)


def test_mean_loss_has_the_gradients_of_all_batches_together() -> None:
    base, batches = make_base(), make_batches(2)
    inner, unused = base.model.norm.weight, torch.nn.Parameter(torch.ones(3))
    sum(base(**batch).loss for batch in batches).div(2).backward()
    expected, inner.grad = inner.grad, None
    base.train()
    loss, (found, nothing) = mean_loss_and_gradients(base, batches, [inner, unused])
    assert loss == pytest.approx(mean_loss(base, batches), rel=1e-6) and base.training
    torch.testing.assert_close(found, expected)
    assert inner.grad is None and not nothing.any()
