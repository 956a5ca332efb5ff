from __future__ import annotations

import json

import pytest

from raylora.run.llamacpp.inside.convert import splitter_of

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        (BYTES, "gpt-2"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]}, "smollm"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, BYTES]}, None),
        ({**BYTES, "add_prefix_space": True}, None),
        ({"type": "Metaspace"}, None),
        (None, None),
    ],
    ids=["bytes", "digits", "numbers", "space", "metaspace", "none"],
)
def test_what_splits_a_text_is_told_where_it_is_certain(steps, name) -> None:
    assert splitter_of({"pre_tokenizer": steps, "normalizer": None}) == name


def test_a_tokenizer_that_changes_texts_is_left_to_the_converters() -> None:
    assert splitter_of({"pre_tokenizer": BYTES, "normalizer": {"type": "NFC"}}) is None


def test_the_tiny_model_has_a_splitter_with_a_name(tiny_model) -> None:
    assert splitter_of(json.loads((tiny_model / "tokenizer.json").read_text())) == "gpt-2"
