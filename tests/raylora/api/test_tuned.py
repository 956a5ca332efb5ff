from __future__ import annotations

import pytest

from raylora.api.tuned import TunedModel
from raylora.spec import from_dict


@pytest.fixture(scope="module")
def tuned(tiny_model) -> TunedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = from_dict({"model": str(tiny_model), "task": {"name": "instruct", "path": "rows.jsonl"}})
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    return TunedModel(model, AutoTokenizer.from_pretrained(tiny_model), spec, max_new_tokens=6)


def test_several_prompts_are_answered_as_each_alone(tuned) -> None:
    prompts = ["2 + 2 = ?", "What is 31 + 5?"]
    assert tuned.answer(prompts) == [tuned.answer(prompt) for prompt in prompts]


def test_a_shorter_answer_is_the_beginning_of_a_longer_one(tuned) -> None:
    longer, shorter = tuned.answer("2 + 2 = ?"), tuned.answer("2 + 2 = ?", max_new_tokens=2)
    assert shorter and longer.startswith(shorter) and longer != shorter


def test_it_unpacks_into_model_and_tokenizer(tuned) -> None:
    model, tokenizer = tuned
    assert (model, tokenizer) == (tuned.model, tuned.tokenizer)
