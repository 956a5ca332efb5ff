from __future__ import annotations

import torch

from trainables.protocols import Sampling
from trainables.sampling import chooser, cut, stopping
from trainables.testing import make_tiny_tokenizer

ROWS = [{"row": n, "prompt_ids": [1, n]} for n in range(3)]
LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))


def drawn(sampling: Sampling, rows, steps: int = 400) -> torch.Tensor:
    choose = chooser(sampling, rows, "cpu")
    logits = LOGITS.expand(len(rows) * sampling.n, -1)
    return torch.cat([choose(logits, range(len(logits)), step) for step in range(steps)], dim=1)


def test_without_a_temperature_the_likeliest_token_is_taken() -> None:
    assert drawn(Sampling(max_new_tokens=5), ROWS, 5).unique().tolist() == [0]


def test_draws_follow_the_probabilities() -> None:
    tokens = drawn(Sampling(max_new_tokens=400, temperature=1.0, n=4), ROWS)
    shares = torch.bincount(tokens.flatten(), minlength=4) / tokens.numel()
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03)


def test_top_p_leaves_the_unlikely_out() -> None:
    assert set(drawn(Sampling(400, temperature=1.0, top_p=0.6), ROWS).flatten().tolist()) == {0, 1}


def test_a_rows_draws_do_not_depend_on_the_batch_and_samples_differ() -> None:
    sampling = Sampling(20, temperature=1.0, n=2)
    together, alone = drawn(sampling, ROWS, 20), drawn(sampling, ROWS[2:], 20)
    assert torch.equal(together[4:], alone)
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(drawn(Sampling(20, temperature=1.0, n=2, seed=1), ROWS, 20), together)


def test_an_answer_ends_before_the_first_stop_string() -> None:
    tokenizer = make_tiny_tokenizer()
    ended = stopping(tokenizer, ["\ndef", "[DONE]"])
    assert ended is not None and ended(tokenizer("x\ndef f")["input_ids"]) and not ended(tokenizer("x")["input_ids"])
    assert cut("a[DONE]b\ndef", ["\ndef", "[DONE]"]) == "a" and cut("a", ["b"]) == "a"
    assert stopping(tokenizer, []) is None
