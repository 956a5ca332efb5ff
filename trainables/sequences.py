"""Several rows in one sequence, each attending to itself alone: batches without the padding of short rows.

Positions start from 0 with each row. That is how transformers is told where one ends: attention gets a block-diagonal
mask, and FlashAttention the lengths (no attention mask must be given beside it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from trainables.batching import IGNORE, Batch, length, trained_spans, trained_tokens
from trainables.modes import evaluating
from trainables.protocols import Row

# Part of the spread of logits that rows of a sequence may differ by, where they should not at all.
_SAME = 0.01


def fill(rows: Sequence[Row], most: int) -> tuple[list[list[Row]], list[Row]]:
    """Rows, longest first, into at most `most` sequences as long as the first one, and those that found no place.

    Each goes into the first sequence with room for it (first fit, decreasing).
    """
    width = length(rows[0])
    sequences: list[list[Row]] = []
    room: list[int] = []
    left = []
    for row in rows:
        size = length(row)
        at = next((place for place, free in enumerate(room) if free >= size), None)
        if at is not None:
            sequences[at].append(row)
            room[at] -= size
        elif len(sequences) < most:
            sequences.append([row])
            room.append(width - size)
        else:
            left.append(row)
    return sequences, left


def packed_micro_batches(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """As `batching.micro_batches`, for `collate_packed`: groups of rows whose sequences hold `max_tokens` at most.

    A single row longer than the bound gets a sequence of its own length, which others may not widen.
    """
    groups: list[list[Row]] = []
    left = sorted(rows, key=length, reverse=True)
    while left:
        before = left
        _, left = fill(before, max(1, max_tokens // length(before[0])))
        waiting = set(map(id, left))
        groups.append([row for row in before if id(row) not in waiting])
    return groups


def packed_size(rows: Sequence[Row]) -> tuple[int, int]:
    """Sequences and their length of a group of `packed_micro_batches`."""
    return len(fill(rows, len(rows))[0]), length(rows[0])


def collate_packed(rows: Sequence[Row], pad_id: int) -> Batch:
    """A group of `packed_micro_batches` as a batch of `n` sequences: the trained tokens of `collate`, without a mask.

    Each padding token is a row of its own, as its position says.
    """
    sequences, _ = fill(rows, len(rows))
    width = length(rows[0])
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    positions, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE)
    for place, sequence in enumerate(sequences):
        at = 0
        for row in sequence:
            own = torch.from_numpy(np.concatenate([row["prompt_ids"], row["response_ids"]]).astype(np.int64))
            ids[place, at : at + len(own)] = own
            positions[place, at : at + len(own)] = torch.arange(len(own))
            for start, end in trained_spans(row):
                labels[place, at + start : at + end] = own[start:end]
            at += len(own)
    # What predicts a label stands one before it; of several sequences, all that one of them needs.
    kept = (labels[:, 1:] != IGNORE).any(dim=0).nonzero()[:, 0]
    inputs = {"input_ids": ids, "position_ids": positions}
    return Batch(inputs, labels[:, kept + 1], sum(map(trained_tokens, rows)), kept)


def check_apart(model: Any) -> None:
    """Holds a model without an adapter against two sequences that differ in their first rows alone.

    Raises:
        ValueError: what it says of their second rows differs too, as with state-space layers.
    """
    device = next(model.parameters()).device
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [3, 1, 0, 4, 5, 6]], device=device)
    with torch.inference_mode(), evaluating(model):
        logits = _logits(model, ids, torch.tensor([[0, 1, 2, 0, 1, 2]] * 2, device=device))
    one, other = logits[:, 3:].float()
    if not float((one - other).abs().max()) <= _SAME * float(one.std()):
        raise ValueError(
            f"train.pack_sequences: {type(model).__name__} does not keep the rows of a sequence apart; set it to false"
        )


def _logits(model: nn.Module, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, position_ids=positions, use_cache=False).logits
