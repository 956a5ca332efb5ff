"""How rows become tokens, and the tokens of a row."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Tokenising:
    """How rows become tokens; small, and the same for all rows of a run.

    Attributes:
        system: system message; "" is an empty one, None leaves the chat template to its default.
        chat_template: whether to use the tokenizer's chat template, if it has one.
        train_on: `all` assistant turns of a conversation, or the `last`.
        control_tokens: whether text that spells a control token is one; None: in plain text rows only.
        truncate: what happens to a row of more than `max_length` tokens: `drop` leaves it as it is (whoever splits
            the rows drops it), `left` shortens the prompt from its beginning, `right` the response from its end.
        max_length: longest prompt + response, in tokens; None for any.
        max_new_tokens: room that `left` keeps behind the prompt even where the response is shorter.
        positions: of the model; longer rows have a problem. None for any.
        texts: whether rows are texts to classify: see `raylora.data.texts`.
    """

    system: str | None = None
    chat_template: bool = True
    train_on: Literal["all", "last"] = "all"
    control_tokens: bool | None = None
    truncate: Literal["drop", "left", "right"] = "drop"
    max_length: int | None = None
    max_new_tokens: int = 0
    positions: int | None = None
    texts: bool = False


@dataclass
class Tokens:
    """One row as the model sees it: `prompt` as rendered, ids, and the trained spans within `prompt_ids`, flat."""

    prompt: str
    prompt_ids: array[int]
    response_ids: array[int]
    trained: list[int] = field(default_factory=list)
