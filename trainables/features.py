"""What an untouched base model makes of rows: where it puts them, and how well it knows their answers already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from trainables.batching import micro_batches
from trainables.decode import by_halves, score_loss
from trainables.heads import Head, forward_only
from trainables.protocols import Row

Kind = Literal["embeddings", "losses"]

# Rows whose tokens are in memory at once.
_ROWS = 1024


def features(
    model: nn.Module,
    rows: Sequence[Row],
    kind: Kind,
    *,
    pad_id: int,
    head: Head,
    device: torch.device | str = "cpu",
    max_tokens: int = 4096,
) -> np.ndarray:
    """Features of each row, in the order of the rows.

    Args:
        model: a transformers model without an adapter, in evaluation mode.
        kind: `embeddings`: the last hidden states in the mean over a row's tokens, `(n, hidden)`; `losses`: nats per
            token of the reference response, `(n,)`, which a classification head does not have. Both are float32.
        max_tokens: bound on the padded tokens of one pass; one row is always taken.
    """
    parts = []
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        if kind == "losses":
            found = score_loss(model, part, pad_id=pad_id, max_tokens=max_tokens, device=device)
            parts.append(np.array(found.losses, dtype=np.float32) / np.maximum(1, found.tokens))
        else:
            parts.append(_embeddings(model, part, pad_id, head, device, max_tokens))
    return np.concatenate(parts).astype(np.float32)


@torch.inference_mode()
def _embeddings(
    model: Any, rows: Sequence[Row], pad_id: int, head: Head, device: torch.device | str, max_tokens: int
) -> np.ndarray:
    placed: list[Row] = [{"place": place, **row} for place, row in enumerate(rows)]
    found: dict[int, np.ndarray] = {}

    def embed(group: Sequence[Row]) -> None:
        inputs = head.collate(group, pad_id).to(device).inputs
        states = model.base_model(**inputs, **forward_only(model.base_model)).last_hidden_state.float()
        kept = inputs["attention_mask"].unsqueeze(-1)  # n x t x 1
        means = (states * kept).sum(1) / kept.sum(1)
        for row, mean in zip(group, means.cpu().numpy(), strict=True):
            found[row["place"]] = mean

    by_halves(micro_batches(placed, max_tokens), embed)
    return np.stack([found[place] for place in range(len(rows))])
