from __future__ import annotations

from raylora.run.recipes.core.rows import Example, changed_by_text, example_of, turns_of


def test_labels_are_the_tokens_of_the_spans_and_nothing_else() -> None:
    assert Example((5, 6, 7, 8), ((1, 2), (3, 4))).labels == [-100, 6, -100, 8]


def test_a_tokenised_row_keeps_its_earlier_turns() -> None:
    row = {"prompt_ids": [1, 2, 3], "response_ids": [4, 5], "prompt_trained": [1, 2]}
    assert example_of(row) == Example((1, 2, 3, 4, 5), ((1, 2), (3, 5)))


def test_turns_read_as_text_give_the_tokens_back(examples, tiny_model) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    turns = [turns_of(one, tokenizer) for one in examples]
    assert changed_by_text(examples, turns, tokenizer) == 0
    turns[0][0]["content"] += "!"
    assert changed_by_text(examples, turns, tokenizer) == 1
