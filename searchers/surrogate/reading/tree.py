"""A radix tree over prompts as token ids, cut into blocks that a language model reads as dense batches.

Prompts that begin alike share the tree's nodes (one node is one token behind one particular beginning), so each is read
once. Sorted by their tokens, the prompts below any node are neighbours; a *block* is a run of such neighbours. What all
prompts of a block have in common is its *stem*, the rest its *own* nodes. Stems are prompts themselves: they make the
next, much smaller tree, whose nodes are read before. That repeats until one block holds everything.

| symbol | meaning                                              | shape     |
|--------|------------------------------------------------------|-----------|
| n      | prompts                                              |           |
| U      | tokens of a block's stem                             |           |
| M      | own nodes of a block, in depth-first order           |           |
| C      | prompts of a block                                   |           |
| above  | which own nodes lie on the path to an own node       | (M, M)    |
| on     | which own nodes lie on the path of a prompt          | (C, M)    |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Block:
    """A run of prompts with a common stem.

    Attributes:
        prompts: `(C,)` positions of its prompts among those that the tree was made of.
        stem: `(U,)` nodes, from the root on.
        own: `(M,)` nodes; tokens: `(M,)` their token ids; depths: `(M,)` tokens before them.
        above: `(M, M)` bool, own node j is on the path to own node i, itself included.
        on: `(C, M)` bool. A prompt's path is the stem and these.
    """

    prompts: np.ndarray
    stem: np.ndarray
    own: np.ndarray
    tokens: np.ndarray
    depths: np.ndarray
    above: np.ndarray
    on: np.ndarray


class PromptTree:
    """The blocks of a list of prompts, and the tree of their stems.

    Args:
        prompts: token ids of each; they may repeat, or begin one another.
        size: most prompts in a block. Larger blocks share more and mask more.

    Attributes:
        lengths: `(n,)` tokens of each prompt.
        blocks: together they hold every prompt once.
        nodes: number of nodes, over this tree and its stems'.
        stems: the tree of the stems, whose nodes have the same numbers; None when no block has a stem.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], size: int = 64) -> None:
        self.lengths = np.array([len(p) for p in prompts], dtype=np.int64)
        width = int(self.lengths.max(initial=0))
        table = np.full((len(prompts), width), -1, dtype=np.int64)
        for row, prompt in zip(table, prompts, strict=True):
            row[: len(prompt)] = prompt
        order = np.lexsort(table.T[::-1]) if width else np.arange(len(prompts))
        table, lengths = table[order], self.lengths[order]
        # shared[i]: tokens that sorted prompts i - 1 and i have in common.
        same = np.zeros((len(table), width), dtype=bool)
        same[1:] = (table[1:] == table[:-1]) & (table[1:] >= 0)
        shared = np.cumprod(same, axis=1).sum(axis=1) if width else np.zeros(len(table), dtype=np.int64)
        depth = np.arange(width)[None, :]
        fresh = (depth >= shared[:, None]) & (depth < lengths[:, None])
        numbers = np.where(fresh, np.cumsum(fresh).reshape(fresh.shape) - 1, -1)
        # A node's number grows with its first prompt, so the largest so far in a column is the one in force.
        paths = np.maximum.accumulate(numbers, axis=0) if len(table) else numbers
        self._build(order, table, lengths, shared, paths, size)
        self.nodes = int(fresh.sum())

    def _build(
        self,
        order: np.ndarray,
        table: np.ndarray,
        lengths: np.ndarray,
        shared: np.ndarray,
        paths: np.ndarray,
        size: int,
    ) -> None:
        self.blocks: list[Block] = []
        start, stems = 0, []
        while start < len(order):
            end = _cut(shared, start, size)
            inside = shared[start + 1 : end]
            if len(inside):
                stem = int(inside.min())
            else:  # one prompt: its stem is what it shares with a neighbour
                stem = max(int(shared[start]), int(shared[end]) if end < len(order) else 0)
            if start == 0 and end == len(order):
                # Nobody to share a stem with: one block reads it all in one go.
                stem = 0
            self.blocks.append(_block(order, table, lengths, paths, start, end, stem))
            if stem:
                stems.append((table[start, :stem], paths[start, :stem]))
            start = end
        self.stems = _stem_tree(stems, size) if stems else None


def _stem_tree(stems: list[tuple[np.ndarray, np.ndarray]], size: int) -> PromptTree:
    """The tree of distinct stems, its nodes numbered as in the tree that they come from."""
    distinct = {tuple(numbers.tolist()): (tokens, numbers) for tokens, numbers in stems}
    rows = list(distinct.values())
    tree = PromptTree.__new__(PromptTree)
    tree.lengths = np.array([len(tokens) for tokens, _ in rows], dtype=np.int64)
    width = int(tree.lengths.max())
    table = np.full((len(rows), width), -1, dtype=np.int64)
    paths = np.full((len(rows), width), -1, dtype=np.int64)
    for i, (tokens, numbers) in enumerate(rows):
        table[i, : len(tokens)], paths[i, : len(numbers)] = tokens, numbers
    # Stems come in the order of the sorted prompts; sorted anew, because a stem may now begin another.
    order = np.lexsort(table.T[::-1])
    table, paths = table[order], paths[order]
    same = np.zeros(table.shape, dtype=bool)
    same[1:] = (paths[1:] == paths[:-1]) & (paths[1:] >= 0)
    shared = np.cumprod(same, axis=1).sum(axis=1)
    tree.nodes = len(np.unique(paths[paths >= 0]))
    tree._build(order, table, tree.lengths[order], shared, paths, size)
    return tree


def _cut(shared: np.ndarray, start: int, size: int) -> int:
    """Where the block that begins at `start` ends: where neighbours have least in common, at full size if equal."""
    last = min(start + size, len(shared))
    if last == len(shared):
        return last
    first = start + max(1, size // 2)
    window = shared[first : last + 1]
    return first + int(np.flatnonzero(window == window.min())[-1])


def _block(
    order: np.ndarray,
    table: np.ndarray,
    lengths: np.ndarray,
    paths: np.ndarray,
    start: int,
    end: int,
    stem: int,
) -> Block:
    rows = np.arange(start, end)
    own: dict[int, int] = {}
    tokens: list[int] = []
    depths: list[int] = []
    parents: list[int] = []
    on_pairs: list[tuple[int, int]] = []
    for c, row in enumerate(rows):
        parent = -1
        for d in range(stem, int(lengths[row])):
            node = int(paths[row, d])
            at = own.get(node)
            if at is None:
                at = own[node] = len(own)
                tokens.append(int(table[row, d]))
                depths.append(d)
                parents.append(parent)
            on_pairs.append((c, at))
            parent = at
    above = np.eye(len(own), dtype=bool)
    for i, parent in enumerate(parents):
        if parent >= 0:
            above[i] |= above[parent]
    on = np.zeros((len(rows), len(own)), dtype=bool)
    if on_pairs:
        on[tuple(np.array(on_pairs).T)] = True
    return Block(
        prompts=order[start:end],
        stem=paths[start, :stem].copy(),
        own=np.fromiter(own, dtype=np.int64, count=len(own)),
        tokens=np.array(tokens, dtype=np.int64),
        depths=np.array(depths, dtype=np.int64),
        above=above,
        on=on,
    )
