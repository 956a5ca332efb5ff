"""Train rows as other toolkits read them: tokens with labels, or turns of text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.batching import IGNORE, trained_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """A row as the model sees it: `ids`, `(t,)`, and the spans of it that are trained on, ascending."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def labels(self) -> list[int]:
        """The ids where they are trained on, -100 elsewhere, `(t,)`."""
        labels = [IGNORE] * len(self.ids)
        for start, end in self.spans:
            labels[start:end] = self.ids[start:end]
        return labels


def example_of(row: Any) -> Example:
    """A tokenised row (see `raylora.data.tokenise.schema`)."""
    ids = [int(token) for name in ("prompt_ids", "response_ids") for token in row[name]]
    return Example(tuple(ids), tuple(trained_spans(row)))


def write_tokens(examples: Iterable[Example], file: Path) -> None:
    """JSON lines of `input_ids`, `attention_mask`, `labels`: nothing is left for the toolkit to render or mask."""
    _write_lines(
        file,
        ({"input_ids": list(one.ids), "attention_mask": [1] * len(one.ids), "labels": one.labels} for one in examples),
    )


def turns_of(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, str]]:
    """The row as text by turns: `user` is what stands before a trained span, `assistant` the span with its end."""
    turns, at = [], 0
    for start, end in example.spans:
        for role, ids in (("user", example.ids[at:start]), ("assistant", example.ids[start:end])):
            turns.append({"role": role, "content": tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)})
        at = end
    return turns


def changed_by_text(
    examples: Sequence[Example], turns: Sequence[Sequence[dict[str, str]]], tokenizer: PreTrainedTokenizerBase
) -> int:
    """How many rows have other tokens when their turns are read as text."""

    def ids_of(row: Sequence[dict[str, str]]) -> tuple[int, ...]:
        pieces = tokenizer([turn["content"] for turn in row], add_special_tokens=False)["input_ids"]
        return tuple(token for piece in pieces for token in piece)

    return sum(ids_of(row) != one.ids for one, row in zip(examples, turns, strict=True))


def write_messages(turns: Iterable[Sequence[dict[str, str]]], file: Path) -> None:
    """JSON lines of `messages`."""
    _write_lines(file, ({"messages": list(row)} for row in turns))


def _write_lines(file: Path, rows: Iterable[Mapping[str, object]]) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
