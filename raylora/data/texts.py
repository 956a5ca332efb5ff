"""Texts to classify as token ids: as the tokenizer itself puts one or two of them together, without a chat."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raylora.data.ids import ids_of
from raylora.data.problems import BEYOND_POSITIONS
from raylora.data.tokens import Tokenising, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS = "texts"
"""Key of a row's metadata: the texts apart, where a row has several or is asked as a question otherwise."""


class TextEncoder:
    """Rows to classify to tokens: `A`, or `A` and `B` with the tokenizer's control tokens around and between them.

    The texts of a row are those under `texts` in its metadata, else its prompt; of a conversation, the turns before the
    last of the assistant, each behind its role. What a text spells is no control token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, how: Tokenising) -> None:
        self.tokenizer, self.how = tokenizer, how

    def encode(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        conversations: Sequence[str | None] | None = None,
        metadata: Sequence[str | None] | None = None,
    ) -> list[Tokens | str]:
        """Tokens of each row, or the problem that it has. There are no response tokens: the label is the answer."""
        nothing: list[str | None] = [None] * len(prompts)
        rows = zip(prompts, conversations or nothing, metadata or nothing, strict=True)
        return [self.tokens(texts_of(*row)) for row in rows]

    def tokens(self, texts: Sequence[str]) -> Tokens | str:
        """Of one row's texts, or its problem."""
        how = self.how
        cut: dict[str, Any] = {}
        if how.truncate != "drop" and how.max_length is not None:
            self.tokenizer.truncation_side = how.truncate
            cut = {"truncation": True, "max_length": how.max_length}
        found = self.tokenizer(
            texts[0],
            " ".join(texts[1:]) if len(texts) > 1 else None,
            split_special_tokens=not how.control_tokens,
            verbose=False,
            **cut,
        )
        ids: array[int] = ids_of(found["input_ids"])
        if how.positions is not None and len(ids) > how.positions:
            return BEYOND_POSITIONS
        return Tokens("\n".join(texts), ids, ids_of(), _second(found))


def texts_of(prompt: str, conversation: str | None, metadata: str | None) -> list[str]:
    """The texts of a row; see `TextEncoder`."""
    about = json.loads(metadata) if metadata and f'"{TEXTS}"' in metadata else {}
    if about.get(TEXTS):
        return [str(text) for text in about[TEXTS]]
    if conversation is None:
        return [prompt]
    turns = json.loads(conversation).get("messages") or []
    return ["\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in turns[:-1]) or prompt]


def _second(found: Mapping[str, Any]) -> list[int]:
    """The span of the second text, where the tokenizer tells it apart by token types of 1; else nothing."""
    kinds = list(found.get("token_type_ids") or ())
    return [kinds.index(1), len(kinds) - kinds[::-1].index(1)] if 1 in kinds else []
