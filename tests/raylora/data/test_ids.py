from __future__ import annotations

import json
import random

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from raylora.data.ids import TextIds, cuts_before_spaces
from trainables.testing import END, PAD, START

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LLAMA = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{REST}"
GPT_4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{REST}"
)
BY_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
CUTS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA), "isolated"), BY_BYTES]),
    "gpt-4o": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT_4O), "isolated"), BY_BYTES]),
}
LETTERS = ["a", "T", "é", "e\u0301", "\u0301", "中", "ß", "1", "23", ".", "!?", "'s", "'", "/", "\0", "🙂", START, END]
BLANKS = [" ", " ", " ", " ", "  ", "   ", "\n", "\n ", " \n", "\r\n", "\t", "\u00a0", "\u2028", "\x1c", "\u200b"]


def tokenizer(cut: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = cut
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[PAD, START, END], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts(200), trainer)
    return made


def texts(count: int) -> list[str]:
    draw = random.Random(0)
    return [
        "".join(draw.choice(BLANKS if draw.random() < 0.5 else LETTERS) for _ in range(draw.randint(0, 40)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=["as is", "nfc"])
@pytest.mark.parametrize("cut", CUTS)
def test_ids_by_words_are_those_of_the_whole_text(cut, normalizer):
    made = tokenizer(CUTS[cut], normalizer)
    ids = TextIds(PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END))
    given = texts(400)
    assert ids.by_words
    wanted = [one.ids for one in made.encode_batch(given, add_special_tokens=False)]
    assert [found.tolist() for found in ids(given)] == wanted
    assert [found.tolist() for found in ids(given)] == wanted, "the second time, when the words are known"


def changed(**changes: object) -> dict:
    made = json.loads(tokenizer(CUTS["gpt-2"]).to_str())
    return {**made, **changes}


@pytest.mark.parametrize(
    "cut",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Metaspace(),
        BY_BYTES,
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{N}+ \p{N}+|" + LLAMA), "isolated"), BY_BYTES]),
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA), "merged_with_next"), BY_BYTES]),
    ],
    ids=["space put first", "metaspace", "no cut", "a piece with a space in it", "pieces joined"],
)
def test_words_are_not_looked_up_where_a_space_may_lie_within_a_piece(cut):
    made = tokenizer(CUTS["gpt-2"])
    made.pre_tokenizer = cut
    assert not cuts_before_spaces(json.loads(made.to_str()))


@pytest.mark.parametrize(
    "token", [AddedToken("of the"), AddedToken("<m>", rstrip=True), AddedToken("<m>", single_word=True)]
)
def test_words_are_not_looked_up_where_an_added_token_may_reach_over_a_space(token):
    made = tokenizer(CUTS["gpt-2"])
    assert cuts_before_spaces(json.loads(made.to_str()))
    made.add_tokens([token])
    assert not cuts_before_spaces(json.loads(made.to_str()))


def test_words_are_not_looked_up_where_the_model_or_the_normalizer_may_see_more_than_a_word():
    whole = changed()
    assert cuts_before_spaces(whole)
    assert not cuts_before_spaces(changed(model={**whole["model"], "dropout": 0.1}))
    assert not cuts_before_spaces(changed(model={**whole["model"], "type": "Unigram"}))
    assert not cuts_before_spaces(changed(normalizer={"type": "Prepend", "prepend": "_"}))


def test_a_tokenizer_that_does_more_than_the_library_is_asked_itself():
    class Own(PreTrainedTokenizerFast):
        def _encode_plus(self, text, *args, **options):
            return {"input_ids": [[len(one)] for one in text]}

    ids = TextIds(Own(tokenizer_object=tokenizer(CUTS["gpt-2"]), eos_token=END))
    assert not ids.by_words
    assert [found.tolist() for found in ids(["a b", ""])] == [[3], [0]]


def test_what_the_tokenizer_file_says_of_cutting_and_filling_up_has_no_part():
    made = tokenizer(CUTS["gpt-2"])
    made.enable_truncation(2)
    made.enable_padding(length=9)
    (found,) = TextIds(PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END))(["a T 1 23 é ß"])
    assert len(found) >= 6 and 0 not in found.tolist()
