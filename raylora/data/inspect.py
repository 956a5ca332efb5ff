"""What is in the rows and what the model will see of them: figures, warnings, and a few rows with their trained tokens.

Reads and tokenises in this process, without Ray.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.data.problems import WORDS, Problems, where
from raylora.data.rows import Source, table_of
from raylora.data.texts import TextEncoder
from raylora.data.tokenise import Encoder, tokenise_with

if TYPE_CHECKING:
    import pyarrow as pa

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
_BINS = 8
_LABELS_AT_MOST, _LONGEST, _SHOWN_ROWS = 20, 3, 3


@dataclass
class _Split:
    """What is gathered of a split while its rows pass."""

    problems: Problems = field(default_factory=Problems)
    prompts: list[int] = field(default_factory=list)  # tokens of each usable row, as the next two
    responses: list[int] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    seen: dict[bytes, str] = field(default_factory=dict)  # hash of a row -> where it stood first
    asked: dict[bytes, str] = field(default_factory=dict)  # hash of a prompt -> where it stood first
    duplicates: int = 0
    first_duplicate: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


def inspect_rows(
    sources: Mapping[str, Source],
    encoder: Encoder | TextEncoder,
    *,
    max_length: int,
    max_new_tokens: int,
    rows: int | None = None,
) -> dict[str, object]:
    """Everything that is told of some data, as plain values.

    Args:
        sources: split -> its rows.
        encoder: of the model's tokenizer, as a run would use it.
        max_length, max_new_tokens: the limits of a run, in tokens.
        rows: look at no more than the first so many rows of a split; None for all.

    Returns:
        `splits` (for each: `recognised`, `rows`, `usable`, `dropped`, `duplicates`, `tokens`, `histogram`, `labels`,
        `longest`, ...), `shared` (prompts that two splits have in common), `shown` (rows as pieces of text, trained
        on or not) and `warnings` (lines).

    Raises:
        UserError: rows or tokenizer cannot be read.
    """
    gathered = {name: _gather(source, encoder, rows) for name, source in sources.items()}
    splits = {
        name: _figures(split, getattr(sources[name], "told", "rows of the task"), max_length, max_new_tokens, rows)
        for name, split in gathered.items()
    }
    report: dict[str, object] = {"splits": splits, "shared": _shared(gathered), "shown": _shown(gathered, encoder)}
    report["warnings"] = _warnings(report, encoder, max_length, max_new_tokens)
    return report


def _tables(source: Source) -> Iterator[pa.Table]:
    if hasattr(source, "tables"):
        yield from source.tables()
        return
    listed = source()
    yield table_of(listed if isinstance(listed, list) else listed.take_all())


def _gather(source: Source, encoder: Encoder | TextEncoder, limit: int | None) -> _Split:
    split, left = _Split(), limit
    for table in _tables(source):
        if left is not None:
            table = table.slice(0, left)
            left -= table.num_rows
        done = tokenise_with(table, lambda: encoder)
        split.problems.add(done)
        for row in done.to_pylist():
            if row["problem"] is None:
                _add(split, row)
        if left == 0:
            break
    return split


def _add(split: _Split, row: dict[str, Any]) -> None:
    place = where(row["source_file"], row["source_row"])
    spans = row["prompt_trained"]
    split.prompts.append(len(row["prompt_ids"]))
    split.responses.append(len(row["response_ids"]))
    split.trained.append(len(row["response_ids"]) + sum(spans[1::2]) - sum(spans[::2]))
    split.places.append(place)
    split.answers[row["answer"]] += 1
    whole, asked = _hash(row["prompt"], row["response"]), _hash(row["prompt"] or row["response"])
    if whole in split.seen:
        split.duplicates += 1
        split.first_duplicate = split.first_duplicate or f"{place}, as {split.seen[whole]}"
    split.seen.setdefault(whole, place)
    split.asked.setdefault(asked, place)
    if len(split.rows) < _SHOWN_ROWS:
        split.rows.append(row)


def _hash(*texts: str) -> bytes:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=12).digest()


def _figures(split: _Split, recognised: str, max_length: int, max_new_tokens: int, limit: int | None) -> dict[str, Any]:
    prompts, responses = np.array(split.prompts, dtype=int), np.array(split.responses, dtype=int)
    whole, problems = prompts + responses, split.problems
    order = np.argsort(-whole, kind="stable")[:_LONGEST]
    balanced = len(split.answers) <= _LABELS_AT_MOST and len(whole) > len(split.answers)
    return {
        "recognised": recognised,
        "rows": problems.rows,
        "cut_off": limit is not None and problems.rows >= limit,
        "usable": len(whole),
        "dropped": {
            reason: {"rows": count, "why": WORDS[reason], "first": problems.first[reason]}
            for reason, count in problems.counts.items()
        },
        "over_max_length": int((whole > max_length).sum()),
        "responses_over_max_new_tokens": int((responses > max_new_tokens).sum()),
        "duplicates": split.duplicates,
        "first_duplicate": split.first_duplicate,
        "prompts": len(split.asked),
        "trained_tokens": sum(split.trained),
        "tokens": {
            name: [int(value) for value in np.quantile(counts, QUANTILES, method="nearest")] if len(counts) else []
            for name, counts in (("prompt", prompts), ("response", responses), ("row", whole))
        },
        "histogram": _histogram(whole),
        "labels": split.answers.most_common() if balanced else [],
        "longest": [{"at": split.places[at], "tokens": int(whole[at])} for at in order],
    }


def _histogram(counts: np.ndarray) -> list[list[int]]:
    """`[from, to, rows]` of equal widths, both ends included."""
    if not len(counts):
        return []
    least, most = int(counts.min()), int(counts.max())
    width = -(-(most - least + 1) // _BINS)
    starts = range(least, most + 1, width)
    rows = np.bincount((counts - least) // width, minlength=len(starts))
    return [[start, start + width - 1, int(count)] for start, count in zip(starts, rows, strict=True)]


def _shared(gathered: Mapping[str, _Split]) -> list[dict[str, object]]:
    """Prompts that two splits have in common, with the first of them."""
    found, names = [], list(gathered)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            common = [key for key in gathered[other].asked if key in gathered[one].asked]
            if common:
                first = f"{gathered[one].asked[common[0]]} and {gathered[other].asked[common[0]]}"
                found.append({"splits": [one, other], "prompts": len(common), "first": first})
    return found


def _shown(gathered: Mapping[str, _Split], encoder: Encoder | TextEncoder) -> list[dict[str, object]]:
    rows = [row for split in gathered.values() for row in split.rows][:_SHOWN_ROWS]
    return [
        {"at": where(row["source_file"], row["source_row"]), "pieces": pieces(row, encoder.tokenizer)} for row in rows
    ]


def pieces(row: Mapping[str, Any], tokenizer: Any) -> list[dict[str, Any]]:
    """A row as the model sees it: `{"text", "trained"}` of the stretches that are trained on and those that are not."""
    ids, prompt = [*row["prompt_ids"], *row["response_ids"]], len(row["prompt_ids"])
    bounds = [0, *row["prompt_trained"], prompt, len(ids)]
    found = []
    for at, (begin, end) in enumerate(pairwise(bounds)):
        if end > begin:
            found.append({"text": tokenizer.decode(ids[begin:end]), "trained": at % 2 == 1})
    return found


def _warnings(
    report: Mapping[str, Any], encoder: Encoder | TextEncoder, max_length: int, max_new_tokens: int
) -> list[str]:
    """What should be looked at before a run, most serious first."""
    told, splits = [], report["splits"]
    for shared in report["shared"]:
        one, other = shared["splits"]
        told.append(f"{shared['prompts']} prompts of {other} are also in {one}, the first at {shared['first']}")
    for name, split in splits.items():
        if split["usable"] > 1 and split["prompts"] == 1:
            told.append(f"all rows of {name} have the same prompt: validation and test cannot be drawn from them")
        if split["over_max_length"]:
            told.append(f"{split['over_max_length']} rows of {name} are longer than max_length = {max_length}")
        if split["responses_over_max_new_tokens"]:
            told.append(
                f"{split['responses_over_max_new_tokens']} responses of {name} are longer than max_new_tokens = "
                f"{max_new_tokens}: a generated answer is cut before its end"
            )
        if split["duplicates"]:
            told.append(f"{split['duplicates']} rows of {name} are duplicates, the first at {split['first_duplicate']}")
    return told + _about_template(encoder)


def _about_template(encoder: Encoder | TextEncoder) -> list[str]:
    if isinstance(encoder, TextEncoder):
        return []
    renderer, told = encoder.renderer, []
    if not renderer.chat:
        told.append("no chat template is used: conversations are written as a plain transcript")
        return told
    turn = renderer.turn
    if not turn.ended:
        told.append(f"the chat template ends no turn with a token of its own: {turn.end} is added to responses")
    elif turn.end != encoder.tokenizer.eos_token:
        told.append(f"the chat template ends a turn with {turn.end}, the tokenizer's end token is another")
    if not renderer.takes_system():
        told.append("the chat template has no system role: system messages are refused or left out")
    return told
