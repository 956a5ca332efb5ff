"""Greedy or drawn continuation of many prompts at once, over a cache in which nothing is copied to take a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import DynamicLayer

from trainables.batching import last_positions
from trainables.sampling import TAIL, Choose

# Columns that a full buffer grows by.
ROOM = 64


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, `rows x heads x tokens x size`, in buffers with room for more.

    A step writes its column in place. Rows leave by being overwritten with later ones, columns by a narrower view.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.keys, self.values = keys, values
        self._buffers = (keys, values)
        self._end = keys.shape[-2]

    @classmethod
    def joined(cls, parts: Sequence[tuple[Tensor, Tensor]], repeats: int) -> GrowingLayer:
        """The keys and values of several batches in one, aligned at their last column, each row `repeats` times."""
        width = max(keys.shape[-2] for keys, _ in parts)
        rows = repeats * sum(len(keys) for keys, _ in parts)
        wholes = []
        for which in (0, 1):
            like = parts[0][which]
            whole = like.new_zeros(rows, like.shape[1], width + ROOM, like.shape[3])
            first = 0
            for part in parts:
                tensor = part[which].repeat_interleave(repeats, dim=0) if repeats > 1 else part[which]
                whole[first : first + len(tensor), :, width - tensor.shape[2] : width] = tensor
                first += len(tensor)
            wholes.append(whole)
        layer = cls(wholes[0][:, :, :width], wholes[1][:, :, :width])
        layer._buffers = (wholes[0], wholes[1])
        return layer

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start, end = self._end, self._end + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._grow(end + ROOM)
            start, end = self._end, self._end + key_states.shape[-2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self._end = end
        self._view(end - start + self.keys.shape[-2])
        return self.keys, self.values

    def keep(self, holes: Tensor, movers: Tensor, rows: int, columns: int) -> None:
        """Put the rows `movers` in the places `holes`, then keep the first `rows` rows and the last `columns` ones."""
        for buffer in self._buffers:
            buffer[holes] = buffer[movers]
        self._buffers = (self._buffers[0][:rows], self._buffers[1][:rows])
        self._view(columns)

    def _view(self, columns: int) -> None:
        first = self._end - columns
        self.keys, self.values = (buffer[:, :, first : self._end] for buffer in self._buffers)

    def _grow(self, capacity: int) -> None:
        """New buffers with what is looked at of the old ones."""
        columns = self.keys.shape[-2]
        room = capacity - self._end
        wholes = []
        for seen in (self.keys, self.values):
            whole = seen.new_zeros(*seen.shape[:2], columns + room, seen.shape[3])
            whole[:, :, :columns] = seen
            wholes.append(whole)
        self._buffers, self._end = (wholes[0], wholes[1]), columns


@dataclass
class Prompted:
    """Prompts of `n` rows that the model has read, padded on the left to `t` tokens.

    Attributes:
        logits: after each prompt, `n x vocabulary`.
        cache: their keys and values, `t` columns.
        mask: 1 where a token stands, `n x t`.
    """

    logits: Tensor
    cache: Any
    mask: Tensor

    @property
    def joinable(self) -> bool:
        """Whether all layers keep all columns: else the rows are decoded apart, and none leaves."""
        return all(type(layer) is DynamicLayer for layer in self.cache.layers)


def read_prompts(model: nn.Module, inputs: dict[str, Tensor]) -> Prompted:
    """Run the model over prompts, as `batching.pad_left` pads them, on the model's device."""
    out = model(**inputs, use_cache=True, logits_to_keep=last_positions(inputs["input_ids"], 1))
    return Prompted(out.logits[:, -1], out.past_key_values, inputs["attention_mask"])


@dataclass(frozen=True)
class Ends:
    """Where answers end.

    Attributes:
        tokens: that end an answer, and are no part of it.
        longest: tokens of an answer at most.
        said: whether an answer is over, told from its last tokens.
        limits: tokens of each answer at most, `(n,)`, where they differ; none is above `longest`.
    """

    tokens: frozenset[int]
    longest: int
    said: Callable[[Sequence[int]], bool] | None = None
    limits: Sequence[int] | None = None

    def reached(self, row: int, answer: Sequence[int]) -> bool:
        """Whether the answer to a row is over, apart from its end token."""
        limit = self.longest if self.limits is None else self.limits[row]
        return len(answer) >= limit or (self.said is not None and self.said(answer[-TAIL:]))


class _Batch:
    """Rows that are continued together; those whose answers are over leave it.

    Attributes:
        rows: which rows of all stand in which place.
    """

    def __init__(self, parts: Sequence[Prompted], repeats: int) -> None:
        width = max(part.mask.shape[1] for part in parts)
        mask = torch.cat([F.pad(part.mask, (width - part.mask.shape[1], 0)) for part in parts])
        self.logits = torch.cat([part.logits for part in parts]).repeat_interleave(repeats, dim=0)
        self.mask = mask.repeat_interleave(repeats, dim=0)
        self.position = self.mask.sum(1, keepdim=True)  # of the next token
        self.prompts: list[int] = self.position[:, 0].tolist()
        self.rows = list(range(len(self.mask)))
        self.steps = 0
        self.grows = parts[0].joinable
        self.cache = parts[0].cache
        if self.grows:
            self._join([part.cache.layers for part in parts], repeats)
        elif repeats > 1:
            self.cache.batch_repeat_interleave(repeats)

    def _join(self, layers: list[list[Any]], repeats: int) -> None:
        for place in range(len(layers[0])):
            held = [(own[place].keys, own[place].values) for own in layers]
            for own in layers:
                own[place] = None  # the joined copy takes its place, layer by layer
            self.cache.layers[place] = GrowingLayer.joined(held, repeats)

    def read(self, model: nn.Module, tokens: Tensor) -> None:
        """Take the logits after one more token of each row, `(n, 1)`."""
        self.mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=1)
        out = model(
            input_ids=tokens,
            attention_mask=self.mask,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits, self.position, self.steps = out.logits[:, -1], self.position + 1, self.steps + 1

    def drop(self, done: list[bool], tokens: Tensor) -> Tensor:
        """Let the rows that are done leave, as far as that is worth it; returns the tokens of those that stay."""
        # Where rows cannot be overwritten in place, all that stay are copied: only for many that leave.
        if done.count(True) < (1 if self.grows else max(1, len(done) // 8)):
            return tokens
        staying = done.count(False)
        holes = [place for place in range(staying) if done[place]]
        movers = [place for place in range(staying, len(done)) if not done[place]]
        order = list(range(staying))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        kept = torch.tensor(order, device=tokens.device)
        self.rows, self.prompts = [self.rows[i] for i in order], [self.prompts[i] for i in order]
        self.mask, self.position = self.mask[kept], self.position[kept]
        if self.grows:
            columns = max(self.prompts) + self.steps
            self.mask = self.mask[:, -columns:]
            to, of = (torch.tensor(places, dtype=torch.long, device=tokens.device) for places in (holes, movers))
            for layer in self.cache.layers:
                layer.keep(to, of, staying, columns)
        else:
            self.cache.batch_select_indices(kept)
        return tokens[kept]


def continue_all(
    model: nn.Module,
    parts: Sequence[Prompted],
    ends: Ends,
    choose: Choose,
    repeats: int = 1,
    told: Callable[[Sequence[int]], None] | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt, `(n * repeats,)` in the order of the parts' rows.

    Args:
        parts: batches of prompts; several only where all are `joinable`. Their caches are used up.
        repeats: answers to each prompt.
        told: called before each call of the model with which answers the rows of its batch are, `(rows,)`.
    """
    batch = _Batch(parts, repeats)
    answers: list[list[int]] = [[] for _ in batch.rows]
    over = [False] * len(answers)
    while True:
        tokens = choose(batch.logits, batch.rows, batch.steps)
        for row, token in zip(batch.rows, tokens[:, 0].tolist(), strict=True):
            if over[row] or token in ends.tokens:
                over[row] = True
                continue
            answers[row].append(token)
            over[row] = ends.reached(row, answers[row])
        if all(over):
            return answers
        staying = batch.drop([over[row] for row in batch.rows], tokens)
        if told is not None:
            told(batch.rows)
        batch.read(model, staying)
