"""Texts to classify as tokens."""

from __future__ import annotations

import json

import pytest

from raylora.data.problems import BEYOND_POSITIONS
from raylora.data.texts import TextEncoder, texts_of
from raylora.data.tokens import Tokenising, Tokens
from trainables.testing import make_tiny_encoder


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    from transformers import AutoTokenizer

    made = {name: make_tiny_encoder(tmp_path_factory.mktemp(name), family=name) for name in ("roberta", "bert")}
    return {name: AutoTokenizer.from_pretrained(folder) for name, folder in made.items()}


def tokens_of(tokenizer, *texts: str, **how) -> Tokens | str:
    return TextEncoder(tokenizer, Tokenising(texts=True, **how)).tokens(texts)


def test_a_pair_is_put_together_as_the_tokenizer_does_it(tokenizers) -> None:
    for tokenizer in tokenizers.values():
        found = tokens_of(tokenizer, "It rains.", "Rain falls.")
        assert list(found.prompt_ids) == tokenizer("It rains.", "Rain falls.")["input_ids"]
        assert list(found.response_ids) == []


def test_the_second_text_is_told_apart_where_the_tokenizer_does_it(tokenizers) -> None:
    found = tokens_of(tokenizers["bert"], "a", "b")
    assert found.trained == [3, 5] and tokenizers["bert"]("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]
    assert tokens_of(tokenizers["bert"], "a").trained == tokens_of(tokenizers["roberta"], "a", "b").trained == []


def test_what_a_text_spells_is_no_control_token(tokenizers) -> None:
    tokenizer = tokenizers["bert"]
    assert list(tokens_of(tokenizer, "a [SEP] b").prompt_ids).count(tokenizer.sep_token_id) == 1
    assert list(tokens_of(tokenizer, "a [SEP] b", control_tokens=True).prompt_ids).count(tokenizer.sep_token_id) == 2


def test_long_texts_are_cut_between_the_control_tokens_or_told(tokenizers) -> None:
    tokenizer = tokenizers["roberta"]
    found = tokens_of(tokenizer, "word " * 40, "more " * 40, truncate="right", max_length=20)
    assert len(found.prompt_ids) == 20 and found.prompt_ids[0] == tokenizer.cls_token_id
    assert found.prompt_ids[-1] == tokenizer.sep_token_id
    assert tokens_of(tokenizer, "word " * 40, positions=10) == BEYOND_POSITIONS


def test_the_texts_of_a_row_are_those_apart_else_its_prompt_or_its_turns() -> None:
    assert texts_of("a question", None, json.dumps({"texts": ["a", "b"]})) == ["a", "b"]
    assert texts_of("a question", None, "{}") == ["a question"]
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "polite")]
    told = json.dumps({"messages": [{"role": role, "content": said} for role, said in turns]})
    assert texts_of("Bye", told, None) == ["user: Hi\nassistant: Hello\nuser: Bye"]
