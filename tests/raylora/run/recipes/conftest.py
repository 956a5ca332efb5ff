"""A finished run that is exported for every toolkit, and a recipe that was made by hand."""

from __future__ import annotations

import pytest

from raylora.run.recipes.core.recipe import Recipe
from raylora.run.recipes.core.rows import Example


@pytest.fixture
def recipe(tiny_model) -> Recipe:
    return Recipe(
        model=str(tiny_model),
        variant="lora",
        rank=4,
        alpha=8,
        dropout=0.1,
        placement="all-linear",
        modules=("k_proj", "q_proj"),
        extra={},
        learning_rate=1e-3,
        batch_size=8,
        micro_batch=2,
        steps=12,
        epochs=2.0,
        warmup_steps=2,
        weight_decay=0.01,
        max_grad_norm=1.0,
        seed=3,
        max_length=64,
        dtype="float32",
        turns="all",
    )


@pytest.fixture
def examples(tiny_model) -> list[Example]:
    """Two rows, the second with an earlier turn that is trained on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    question, said = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("1 + 1 =", " 2"))
    said = [*said, tokenizer.eos_token_id]
    q, s = len(question), len(said)
    one = Example((*question, *said), ((q, q + s),))
    two = Example((*question, *said, *question, *said), ((q, q + s), (2 * q + s, 2 * q + 2 * s)))
    return [one, two]
