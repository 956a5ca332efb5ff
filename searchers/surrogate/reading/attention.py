"""Attention in which many positions read one copy of what they have in common.

The positions of a forward call are laid out flat, in one sequence of `G C` tokens: C positions in each of G blocks (see
`tree.py`). Each attends, in a single softmax, to

1. the prefix, one copy for all;
2. the stem of its block, one copy for the block;
3. the own nodes of its block, by a mask; while a block's nodes are being read, the positions are these nodes;
4. itself, where it is no node (the learnable token).

With explicit position ids these are the numbers of whole prompts, to rounding: no prefix is copied per prompt.

| symbol     | meaning                                                          | shape          |
|------------|------------------------------------------------------------------|----------------|
| G, C       | blocks, positions in each                                        |                |
| K, R, D    | key-value heads, query heads for each of them, head size         |                |
| P, U, M    | tokens of prefix, stems (padded), own nodes (padded)             |                |
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NAME = "raylora_shared_prefix"


@dataclass
class Context:
    """What the positions of the forward call in progress attend to.

    Attributes:
        prefix: per layer keys and values `(K, P, D)`; None while the prefix itself is read.
        stem: `(L, 2, G, K, U, D)`; stem_ok `(G, U)` bool: which of it is no padding.
        own: `(L, 2, G, K, M, D)`, or None when the positions are the own nodes.
        own_ok: `(G, C, M)` bool: which own nodes a position reads.
        made: gets each layer's keys and values of the positions, `(K, G C, D)`, where given.
    """

    blocks: int
    own_ok: Tensor
    prefix: list[tuple[Tensor, Tensor]] | None = None
    stem: Tensor | None = None
    stem_ok: Tensor | None = None
    own: Tensor | None = None
    made: list[tuple[Tensor, Tensor]] | None = None


_context: Context | None = None


@contextlib.contextmanager
def attending(model: nn.Module, context: Context) -> Iterator[None]:
    """The model attends as `context` says, instead of in its own way, for the duration."""
    global _context
    config = model.config
    usual = config._attn_implementation
    config._attn_implementation, _context = NAME, context
    try:
        yield
    finally:
        config._attn_implementation, _context = usual, None


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """transformers' attention interface over the `Context` in force.

    Args:
        query: `(1, K R, G C, D)`; key, value: `(1, K, G C, D)`, already rotated.

    Returns:
        `(1, G C, K R, D)`.
    """
    now = _context
    assert now is not None, "runs only within `attending`"
    if kwargs.get("s_aux") is not None:
        raise ValueError("attention sinks are not supported")
    layer: int = module.layer_idx
    if now.made is not None:
        now.made.append((key[0].detach(), value[0].detach()))
    _, heads, flat, d = query.shape
    k, g = key.shape[1], now.blocks
    r, c = heads // k, flat // g
    kind = query.dtype
    scale = d**-0.5 if scaling is None else scaling
    # Query head h reads key-value head h // R.
    q = (query[0] * scale).view(k, r, g, c, d).permute(2, 0, 1, 3, 4).reshape(g, k, r * c, d)

    softcap = kwargs.get("softcap")
    scores: list[Tensor] = []
    values: list[Tensor] = []

    def read(keys: Tensor, vals: Tensor, ok: Tensor | None) -> None:
        """Keys and values `(G or 1, K, T, D)`, one for all blocks if 1; ok: `(G, 1 or C, T)`."""
        score = _matmul(q, keys.to(kind).transpose(2, 3))
        if softcap is not None:
            score = torch.tanh(score / softcap) * softcap
        if ok is not None:
            score = score.view(g, k, r, c, -1).masked_fill(~ok[:, None, None], float("-inf")).view(g, k, r * c, -1)
        scores.append(score)
        values.append(vals.to(kind))

    def by_block(flat_heads: Tensor) -> Tensor:
        return flat_heads.view(k, g, c, d).transpose(0, 1)

    if now.prefix is not None:
        keys, vals = now.prefix[layer]
        read(keys[None], vals[None], None)
    if now.stem is not None:
        assert now.stem_ok is not None
        read(now.stem[layer, 0], now.stem[layer, 1], now.stem_ok[:, None])
    if now.own is None:
        read(by_block(key[0]), by_block(value[0]), now.own_ok)
    else:
        if now.own.shape[4]:
            read(now.own[layer, 0], now.own[layer, 1], now.own_ok)
        # The position itself: one product each, not a matrix of all with all.
        own_keys = by_block(key[0])[:, :, None].expand(-1, -1, r, -1, -1).reshape(g, k, r * c, d)
        score = (q * own_keys).sum(dim=-1, keepdim=True)
        scores.append(score if softcap is None else torch.tanh(score / softcap) * softcap)

    weights = torch.cat(scores, dim=-1).softmax(dim=-1, dtype=torch.float32).to(kind)
    parts = weights.split([score.shape[-1] for score in scores], dim=-1)
    out = torch.zeros_like(q)
    for part, vals in zip(parts, values, strict=False):
        out = out + _matmul(part, vals)
    if now.own is not None:
        out = out + parts[-1] * by_block(value[0])[:, :, None].expand(-1, -1, r, -1, -1).reshape(g, k, r * c, d)
    # Back to the flat order of positions.
    out = out.view(g, k, r, c, d).permute(0, 3, 1, 2, 4).reshape(1, flat, heads, d)
    return out, None


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` for `(G, K, N, S) @ (G or 1, K, S, T)`; one on the right serves all in a single product."""
    g, k, n, s = left.shape
    if len(right) == g:
        return left @ right
    folded = left.transpose(0, 1).reshape(k, g * n, s) @ right[0]
    return folded.view(k, g, n, -1).transpose(0, 1)
