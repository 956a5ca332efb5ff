"""Prompts read once, as a tree in which they share their beginnings: see `embed.py`.

| symbol     | meaning                                        | shape                   |
|------------|------------------------------------------------|-------------------------|
| n          | prompts of a reading                           |                         |
| L, K, D    | layers, key-value heads, head size             |                         |
| G, U, M, C | blocks of a group, their stem, own nodes, prompts (padded to the largest) |  |
| own        | keys and values of a group's own nodes         | (L, 2, G, K, M, D)      |
| table      | the same for all nodes of stems, one each      | (N, L, 2, K, D)         |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .attention import Context, attending
from .cache import DiskCache
from .model import FrozenModel, Progress
from .tree import Block, PromptTree

# Positions in one forward call: enough for the matrix products to run at full speed, few enough for the caches.
_POSITIONS = 2048


@dataclass
class _Group:
    """Blocks that go through the model together, as tensors padded to the largest.

    Attributes:
        rows: `(R,)` prompts, in the order of their positions; at: `(R,)` their places among `G C`.
        stem_at: `(G, U)` rows of the stem table; stem_ok: which of them are no padding.
        tokens, depths: `(G, M)`; above `(G, M, M)` bool; on `(G, C, M)` bool; ends `(G, C)` tokens before the token.
        nodes: `(G, M)` numbers, -1 for padding.
        own: keys and values, or None where they are read anew each time.
    """

    rows: np.ndarray
    at: Tensor
    stem_at: Tensor
    stem_ok: Tensor
    tokens: Tensor
    depths: Tensor
    above: Tensor
    on: Tensor
    ends: Tensor
    nodes: np.ndarray
    own: Tensor | None = None


class Reading:
    """Prompts that a model has read: the keys and values behind the prefix. See `embed.py`.

    Attributes:
        kept: share of the groups whose keys and values are in memory.
    """

    def __init__(
        self,
        reader: FrozenModel,
        prompts: Sequence[Sequence[int]],
        kv_bytes: int = 1 << 31,
        cache: DiskCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.reader = reader
        self.tree = PromptTree(prompts)
        self._table: Tensor | None = None
        self._place: dict[int, int] = {}
        left = kv_bytes - self._read_stems()
        self._groups = [self._group(blocks) for blocks in _together(self.tree.blocks)]
        done = 0
        for number, group in enumerate(self._groups):
            left -= self._own_bytes(group)
            if left < 0:
                break
            name = f"group{number}"
            group.own = None if cache is None else cache.get(name, reader.device, self._own_shape(group))
            if group.own is None:
                group.own = self._read_own(group)
                if cache is not None:
                    cache.put(name, group.own)
            done += len(group.rows)
            if progress is not None:
                progress(done, len(self))
        if cache is not None:
            cache.commit()
        self.kept = sum(g.own is not None for g in self._groups) / max(1, len(self._groups))

    def __len__(self) -> int:
        return len(self.tree.lengths)

    def run(self, token: Tensor, progress: Progress | None = None) -> Tensor:
        """Hidden state at the token behind every prompt, float32 on the CPU, `(n, hidden)`.

        Differentiable in `token` `(hidden,)` unless gradients are off.
        """
        out: list[Tensor] = []
        rows: list[np.ndarray] = []
        for group in self._groups:
            out.append(self._run_group(group, token))
            rows.append(group.rows)
            if progress is not None:
                progress(sum(map(len, rows)), len(self))
        back = np.argsort(np.concatenate(rows), kind="stable")
        return torch.cat(out)[torch.from_numpy(back)]

    def _run_group(self, group: _Group, token: Tensor) -> Tensor:
        reader = self.reader
        own = group.own if group.own is not None else self._read_own(group)
        g, c, _ = group.on.shape
        embeds = token.to(reader.device, reader.token_dtype).expand(1, g * c, -1)
        context = Context(g, group.on, reader.token_prefix, self._stem(group), group.stem_ok, own)
        with attending(reader.token_model, context):
            hidden = reader.token_model(
                inputs_embeds=embeds, position_ids=group.ends.view(1, -1), use_cache=False
            ).last_hidden_state
        return hidden[0, group.at].float().cpu()

    # -- reading nodes -----------------------------------------------------------------------------------------------

    def _read_own(self, group: _Group) -> Tensor:
        """`own` of a group, in one forward call over its nodes."""
        reader = self.reader
        g, m = group.tokens.shape
        own = torch.empty(self._own_shape(group), dtype=reader.dtype, device=reader.device)
        if m == 0:
            return own
        made: list[tuple[Tensor, Tensor]] = []
        context = Context(g, group.above, reader.prefix, self._stem(group), group.stem_ok, made=made)
        with torch.no_grad(), attending(reader.model, context):
            reader.model(input_ids=group.tokens.view(1, -1), position_ids=group.depths.view(1, -1), use_cache=False)
        for layer, pair in enumerate(made):
            for i, tensor in enumerate(pair):  # (K, G M, D)
                own[layer, i] = tensor.view(tensor.shape[0], g, m, -1).transpose(0, 1)
        return own

    def _read_stems(self) -> int:
        """Fills the table of stem nodes, from the smallest tree of stems down; returns its bytes."""
        trees: list[PromptTree] = []
        tree = self.tree.stems
        while tree is not None:
            trees.append(tree)
            tree = tree.stems
        if not trees:
            return 0
        keys, _ = self.reader.prefix[0]
        shape = (trees[0].nodes, len(self.reader.prefix), 2, keys.shape[0], keys.shape[2])
        self._table = torch.zeros(shape, dtype=self.reader.dtype, device=self.reader.device)
        for level in reversed(trees):
            for blocks in _together(level.blocks):
                group = self._group(blocks)
                own = self._read_own(group)  # (L, 2, G, K, M, D)
                for b in range(len(blocks)):
                    for node, values in zip(group.nodes[b], own[:, :, b].permute(3, 0, 1, 2, 4), strict=True):
                        if node >= 0:
                            self._table[self._place.setdefault(int(node), len(self._place))] = values
        return self._table.nbytes

    def _stem(self, group: _Group) -> Tensor | None:
        if self._table is None or group.stem_at.shape[1] == 0:
            return None
        return self._table[group.stem_at].permute(2, 3, 0, 4, 1, 5).contiguous()  # (L, 2, G, K, U, D)

    def _own_shape(self, group: _Group) -> tuple[int, ...]:
        keys, _ = self.reader.prefix[0]
        g, m = group.tokens.shape
        return (len(self.reader.prefix), 2, g, keys.shape[0], m, keys.shape[2])

    def _own_bytes(self, group: _Group) -> int:
        return int(np.prod(self._own_shape(group))) * self.reader.dtype.itemsize

    def _group(self, blocks: Sequence[Block]) -> _Group:
        start = len(self.reader.prefix_ids)
        g = len(blocks)
        c = max(len(b.prompts) for b in blocks)
        m = max(len(b.own) for b in blocks)
        u = max(len(b.stem) for b in blocks)
        tokens = np.zeros((g, m), dtype=np.int64)
        depths = np.full((g, m), start, dtype=np.int64)
        # Padded nodes see themselves, so that no softmax is over nothing.
        above = np.broadcast_to(np.eye(m, dtype=bool), (g, m, m)).copy()
        on = np.zeros((g, c, m), dtype=bool)
        ends = np.full((g, c), start, dtype=np.int64)
        stem = np.zeros((g, u), dtype=np.int64)
        stem_ok = np.zeros((g, u), dtype=bool)
        nodes = np.full((g, m), -1, dtype=np.int64)
        at: list[np.ndarray] = []
        for i, b in enumerate(blocks):
            k, p = len(b.own), len(b.prompts)
            tokens[i, :k], depths[i, :k], nodes[i, :k] = b.tokens, b.depths + start, b.own
            above[i, :k, :k] = b.above
            on[i, :p, :k] = b.on
            ends[i, :p] = len(b.stem) + b.on.sum(axis=1) + start
            stem[i, : len(b.stem)] = [self._place[int(node)] for node in b.stem]
            stem_ok[i, : len(b.stem)] = True
            at.append(i * c + np.arange(p))

        def on_device(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(self.reader.device)

        return _Group(
            rows=np.concatenate([b.prompts for b in blocks]),
            at=on_device(np.concatenate(at)),
            stem_at=on_device(stem),
            stem_ok=on_device(stem_ok),
            tokens=on_device(tokens),
            depths=on_device(depths),
            above=on_device(above),
            on=on_device(on),
            ends=on_device(ends),
            nodes=nodes,
        )


def _together(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Groups of blocks of similar size, about `_POSITIONS` nodes each."""
    order = sorted(range(len(blocks)), key=lambda i: (len(blocks[i].own), len(blocks[i].prompts)))
    part: list[Block] = []
    for i in order:
        size = max(len(blocks[i].own), len(blocks[i].prompts), 1)
        if part and size * (len(part) + 1) > _POSITIONS:
            yield part
            part = []
        part.append(blocks[i])
    if part:
        yield part
