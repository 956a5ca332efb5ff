from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from raylora.metrics.core.likelihood import encode_options, option_scores

PROMPTS = [[1, 5, 9, 7], [3], [2, 8, 4, 4, 6, 1, 9], [1, 5]]
OPTIONS = [[[4, 5], [6], []], [[7, 8, 9, 3], [2, 2]], [[1], [2], [3], [4]], [[9, 9, 1]]]


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4)).eval()


def one_by_one(model, prompt, option):
    """The option's log-likelihood from a forward pass of its own, without padding, cache or mask."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *option]])).logits[0].float().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(option))


@pytest.fixture(params=["llama", "gpt2"])
def model(request, tiny_model):
    return gpt2() if request.param == "gpt2" else AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.mark.parametrize("batch_tokens", [1, 30, 8192])
def test_they_are_those_of_a_pass_for_each_option(model, batch_tokens):
    found = option_scores(model, PROMPTS, OPTIONS, batch_tokens=batch_tokens)
    for prompt, options, scores in zip(PROMPTS, OPTIONS, found, strict=True):
        expected = [one_by_one(model, prompt, option) for option in options]
        assert scores.log_likelihoods == pytest.approx(expected, abs=1e-4)
        assert scores.tokens == tuple(map(len, options))


def test_a_model_that_keeps_no_cache_gives_the_same(monkeypatch):
    model = gpt2()
    expected = option_scores(model, PROMPTS, OPTIONS)
    forward = model.forward

    def without_cache(*args, use_cache=None, **more):
        return forward(*args, use_cache=False, **more)

    without_cache.__signature__ = __import__("inspect").signature(forward)
    monkeypatch.setattr(model, "forward", without_cache)
    for scores, wanted in zip(option_scores(model, PROMPTS, OPTIONS), expected, strict=True):
        assert scores.log_likelihoods == pytest.approx(wanted.log_likelihoods, abs=1e-4)


def test_no_rows_have_no_scores():
    assert option_scores(gpt2(), [], []) == []


def test_an_option_is_what_it_adds_to_the_prompt(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompt, options = encode_options(tokenizer, "3+4= ", ["7", "12"])
    assert prompt == tokenizer("3+4=")["input_ids"]
    assert [[*prompt, *option] for option in options] == [
        tokenizer(f"3+4= {text}")["input_ids"] for text in ("7", "12")
    ]


def test_an_empty_prompt_still_has_a_token(tiny_model):
    prompt, options = encode_options(AutoTokenizer.from_pretrained(tiny_model), "", ["7"])
    assert len(prompt) == 1 and len(options[0]) >= 1
