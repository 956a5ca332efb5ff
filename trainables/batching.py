"""Rows to tensors: which rows make which global batch, and how they are padded.

Rows are padded on the left, so the completion tokens of every row stand at the end of the tensor and the
language-model head (a fifth of the work of a small model) runs on those positions alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.protocols import Row

IGNORE = -100


@dataclass
class Batch:
    """One padded micro-batch of `n` rows and `t` positions.

    Attributes:
        inputs: `input_ids`, `attention_mask` and `position_ids`, each `n x t`.
        labels: `n x k`, the last `k` tokens; -100 where nothing is trained: padding and what stands before or
            between the trained turns.
        tokens: Trained tokens in it.
        kept: Positions whose logits predict the labels, `(k,)`, where those are not of the last `k` tokens.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    tokens: int
    kept: Tensor | None = None

    @property
    def positions(self) -> Tensor:
        """`k` positions whose logits predict the labels."""
        if self.kept is not None:
            return self.kept
        return last_positions(self.inputs["input_ids"], self.labels.shape[1], before=1)

    def to(self, device: torch.device | str) -> Batch:
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Batch(inputs, self.labels.to(device), self.tokens, None if self.kept is None else self.kept.to(device))


def last_positions(ids: Tensor, count: int, before: int = 0) -> Tensor:
    """The `count` positions that end `before` the last one of `ids` (n x t), as a model's `logits_to_keep`.

    As indices, not as a number: that would make the model slice its hidden states, and PyTorch multiplies such a view
    with the language-model head by copying the head once per row.
    """
    end = ids.shape[1] - before
    return torch.arange(end - count, end, device=ids.device)


def length(row: Row) -> int:
    """Tokens of the prompt and the response together."""
    return len(row["prompt_ids"]) + len(row["response_ids"])


def trained_spans(row: Row) -> list[tuple[int, int]]:
    """Where a row is trained on, as `(start, end)` positions in prompt + response; the response is the last span.

    `prompt_trained`, where the row has it, holds the earlier ones (the assistant's earlier turns) as a flat list
    `start, end, start, end, ...` of positions in the prompt.
    """
    prompt = len(row["prompt_ids"])
    earlier = row.get("prompt_trained")
    bounds = [] if earlier is None else [int(bound) for bound in earlier]
    return [*zip(bounds[::2], bounds[1::2], strict=True), (prompt, prompt + len(row["response_ids"]))]


def trained_tokens(row: Row) -> int:
    """Number of tokens whose loss counts."""
    return sum(end - start for start, end in trained_spans(row))


def pad_left(sequences: Sequence[Sequence[int] | np.ndarray], pad_id: int) -> dict[str, Tensor]:
    """Left-padded `input_ids`, `attention_mask`, `position_ids`, each `n x max length`.

    Positions count from a row's first real token, so padding never shifts them.
    """
    width = max(len(s) for s in sequences)
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.long)
    for i, sequence in enumerate(sequences):
        ids[i, width - len(sequence) :] = torch.from_numpy(np.array(sequence, dtype=np.int64))
        mask[i, width - len(sequence) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Pad `rows` into one batch whose labels are the response tokens and those of earlier trained turns."""
    sequences = [np.concatenate([row["prompt_ids"], row["response_ids"]]) for row in rows]
    inputs = pad_left(sequences, pad_id)
    ids, width = inputs["input_ids"], inputs["input_ids"].shape[1]
    # Counted from the end, where all rows are aligned.
    spans = [[(start - length(row), end - length(row)) for start, end in trained_spans(row)] for row in rows]
    reach = -min(start for places in spans for start, _ in places)
    labels = torch.full((len(rows), reach), IGNORE, dtype=torch.long)
    for i, places in enumerate(spans):
        for start, end in places:
            labels[i, reach + start : reach + end] = ids[i, width + start : width + end]
    return Batch(inputs, labels, sum(trained_tokens(row) for row in rows))


def micro_batches(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """Group rows of like length so that each group holds at most `max_tokens` padded tokens.

    A single row longer than the bound stands alone. The sum over the groups is the same loss in any order.
    """
    groups: list[list[Row]] = []
    for row in sorted(rows, key=length, reverse=True):
        # Sorted descending: the first row of a group is its width.
        if groups and (len(groups[-1]) + 1) * length(groups[-1][0]) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def labelled_batches(
    rows: Sequence[Row], pad_id: int, max_tokens: int, device: torch.device | str
) -> list[dict[str, Tensor]]:
    """`rows` in micro-batches, as keyword arguments for a causal language model.

    Each has the model's inputs and `labels`, all `n x t`, -100 where nothing is trained.
    """
    batches = []
    for group in micro_batches(rows, max_tokens):
        batch = collate(group, pad_id)
        labels = torch.full_like(batch.inputs["input_ids"], IGNORE)
        labels[:, -batch.labels.shape[1] :] = batch.labels
        batches.append({name: t.to(device) for name, t in {**batch.inputs, "labels": labels}.items()})
    return batches


def global_batches(n_rows: int, batch_size: int, samples: int, seed: int) -> Iterator[list[int]]:
    """Row indices of each global batch: shuffled epochs laid end to end and cut into batches.

    Exactly `samples` visits in all; the last batch is smaller where they do not divide. The order depends
    on `seed` alone, never on batch size or on the number of workers.
    """
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    seen = 0
    while seen < samples:
        want = min(batch_size, samples - seen)
        while len(order) < want:
            order += torch.randperm(n_rows, generator=generator).tolist()
        yield order[:want]
        order = order[want:]
        seen += want


def count_steps(batch_size: int, samples: int) -> int:
    """Optimizer steps of a budget of `samples`; at least one."""
    return max(1, -(-samples // batch_size))
