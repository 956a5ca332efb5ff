"""Token ids of texts, looked up word by word where a tokenizer gives a text the ids of its words one after the other.

Byte-level BPE cuts a text into pieces by regular expressions before it encodes each of them on its own. In the
expressions that are known here a space is either the first character of a piece or part of a run of white space: a
text can be cut before any space that does not follow white space, and its ids are those of the parts, laid end to end.
Texts repeat their words, so that most parts were encoded before.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# What is kept of the parts that were encoded; a longer one is hardly met again.
_PARTS_AT_MOST, _PART_AT_MOST = 2**18, 40
# Where, after so many parts, more than this share was new, encoding whole texts is faster.
_TRIED, _NEW_AT_MOST = 2**19, 0.3
_CUT, _NO_CUT = re.compile(r"(?<=\S)(?= )"), re.compile(r" (?<=\s )")
_MARK = "\0"

_OPTIONAL, _CONTRACTION = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD, _CAPITALS = rf"{_OPTIONAL}{_UPPER}*{_LOWER}+", rf"{_OPTIONAL}{_UPPER}+{_LOWER}*"
ALTERNATIVES = frozenset(
    {
        *(_CONTRACTION, rf"{_OPTIONAL}\p{{L}}+", rf"{_OPTIONAL}[\p{{L}}\p{{M}}]+"),
        *(_WORD, _CAPITALS, f"{_WORD}{_CONTRACTION}?", f"{_CAPITALS}{_CONTRACTION}?"),
        *(r"\p{N}", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
        *(r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"),
    }
)
"""What the expressions of Llama 3, Qwen 2 to 3.5, GPT-4o and Tekken are made of."""


def ids_of(values: Iterable[int] = ()) -> array[int]:
    """Token ids as 32-bit integers."""
    return array("i", values)


class TextIds:
    """Token ids of texts by one tokenizer, without those that it would add before and after a text.

    Control tokens in a text are read as such.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, bytes] = {}
        self._tried = self._new = 0

    @cached_property
    def _backend(self) -> Tokenizer | None:
        """Of `tokenizers`, where all that the tokenizer does is call it."""
        from transformers import PreTrainedTokenizerFast

        kind, known = type(self.tokenizer), PreTrainedTokenizerFast
        if not issubclass(kind, known) or self.tokenizer.split_special_tokens:
            return None
        same = kind.__call__ is known.__call__ and kind._encode_plus is known._encode_plus
        return self.tokenizer.backend_tokenizer if same else None

    @cached_property
    def by_words(self) -> bool:
        """Whether ids can be looked up word by word."""
        return self._backend is not None and cuts_before_spaces(json.loads(self._backend.to_str()))

    def __call__(self, texts: Sequence[str]) -> list[array[int]]:
        if not self.by_words or (self._tried > _TRIED and self._new > _NEW_AT_MOST * self._tried):
            return self._encoded(texts)
        cut, known = [_parts(text) for text in texts], self._known
        new = list(set(chain.from_iterable(cut)).difference(known))
        self._tried += sum(map(len, cut))
        self._new += len(new)
        known.update(zip(new, (found.tobytes() for found in self._encoded(new)), strict=True))
        found = [array("i", b"".join(map(known.__getitem__, parts))) for parts in cut]
        if len(known) > _PARTS_AT_MOST:
            known.clear()
        for part in new:
            if len(part) > _PART_AT_MOST:
                known.pop(part, None)
        return found

    def _encoded(self, texts: Sequence[str]) -> list[array[int]]:
        backend = self._backend
        if not texts:
            return []
        if backend is None:
            # Not verbose: the tokenizer's own limit is not what decides here.
            options: dict[str, object] = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
            return [ids_of(found) for found in self.tokenizer(list(texts), **options)["input_ids"]]
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        return [ids_of(found.ids) for found in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def ordinary(self, text: str) -> array[int]:
        """Ids of a text in which control tokens are ordinary text."""
        if not text:
            return ids_of()
        options: dict[str, object] = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        return ids_of(self.tokenizer(text, split_special_tokens=True, **options)["input_ids"])


def _parts(text: str) -> list[str]:
    """A text cut before each space that does not follow white space."""
    if _MARK in text or _NO_CUT.search(text):
        return _CUT.split(text)
    return text.replace(" ", f"{_MARK} ").split(_MARK)


# --- where a tokenizer cuts ---


def cuts_before_spaces(tokenizer: Mapping[str, Any]) -> bool:
    """Whether the ids of a text are those of its parts, where it is cut before spaces that do not follow white space.

    Args:
        tokenizer: the content of a `tokenizer.json`. What is not known is taken to be different.
    """
    model = tokenizer["model"]
    return (
        model["type"] == "BPE"
        and not model.get("dropout")
        and _kinds(tokenizer["normalizer"], "normalizers") <= {"NFC"}
        and not any(map(_reaches_over, tokenizer["added_tokens"]))
        and _pieces_begin_at_spaces(_several(tokenizer["pre_tokenizer"], "pretokenizers"))
    )


def _several(step: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    return step[name] if step["type"] == "Sequence" else [step]


def _kinds(step: Mapping[str, Any] | None, name: str) -> set[str]:
    return {one["type"] for one in _several(step, name)}


def _reaches_over(token: Mapping[str, Any]) -> bool:
    """Whether an added token can lie on both sides of a cut, or depends on what is there."""
    return bool(re.search(r"\S ", token["content"])) or token["single_word"] or token["lstrip"] or token["rstrip"]


def _pieces_begin_at_spaces(steps: Sequence[Mapping[str, object]]) -> bool:
    """Whether one of the steps cuts there and none of the others minds."""
    cuts = [_cuts(step) for step in steps]
    return None not in cuts and True in cuts


def _cuts(step: Mapping[str, Any]) -> bool | None:
    """Whether a step of the pre-tokenizer cuts before each such space; None for one that is not known."""
    if step["type"] == "Digits":
        return False
    if step["type"] == "ByteLevel":
        return None if step["add_prefix_space"] else bool(step["use_regex"])
    if step["type"] != "Split" or step["behavior"] != "Isolated" or step["invert"]:
        return None
    return True if set(_alternatives(step["pattern"].get("Regex", ""))) <= ALTERNATIVES else None


def _alternatives(expression: str) -> list[str]:
    """The alternatives of a regular expression, those within brackets apart."""
    found, depth = [""], 0
    for letter in expression:
        depth += (letter in "([") - (letter in ")]")
        if letter == "|" and not depth:
            found.append("")
        else:
            found[-1] += letter
    return found
