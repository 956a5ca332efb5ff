"""Networks that map the rows of a factor to new rows: h(z) for z of shape (G, t, c) -> (G, t, o).

Zhang et al., HyperAdaLoRA: Accelerating LoRA Rank Allocation During Training via Hypernetworks without Sacrificing
Performance, sections 3.3, 4.1.4 and 4.6. Notation of this package:

    G, t      factors stacked, and rows of each: a row is a token
    q         directions (columns) of a factor
    c, o      features that a token brings, numbers that it gets back
    h         width of the network (`hidden`)
    w         rows that attend to each other (`window`); None for all t

Every network is Linear(c, h), a body, Linear(h', o), so factors of any number of rows share one.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("bert", "mlp", "cnn")
# TinyBERT of 4 layers and hidden size 312: its feed-forward width is 1200.
_TINYBERT_HIDDEN, _TINYBERT_INNER = 312, 1200
_KERNEL = 3


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, multiple: int | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V for `(..., t, d)`, with d filled up to a multiple where the device asks for it.

    Args:
        multiple: None for the device's own: 8 on GPUs, 1 elsewhere.
    """
    width = query.shape[-1]
    missing = -width % (multiple or (8 if query.is_cuda else 1))
    if not missing:
        return F.scaled_dot_product_attention(query, key, value)
    query, key, value = (F.pad(x, (0, missing)) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=width**-0.5)[..., :width]


def attend(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    """Softmax attention within windows of consecutive rows (the last one may be shorter).

    Fused: no (t, t) tensor is formed. On a GPU the fused kernels want d in steps of 8, so it is filled up with zeros.

    Args:
        query, key, value: `(G, heads, t, d)`.
        window: rows per window; None for one window of all t.

    Returns:
        `(G, heads, t, d)`.
    """
    count, heads, rows, width = query.shape
    if window is None or window >= rows:
        return softmax_attention(query, key, value)
    whole = rows - rows % window

    def within(x: Tensor) -> Tensor:
        parts = x[:, :, :whole].reshape(count, heads, whole // window, window, width)
        return parts.transpose(1, 2).flatten(0, 1)  # (G whole / w, heads, w, d)

    done = softmax_attention(within(query), within(key), within(value))
    done = done.unflatten(0, (count, whole // window)).transpose(1, 2).reshape(count, heads, whole, width)
    if whole == rows:
        return done
    rest = softmax_attention(query[:, :, whole:], key[:, :, whole:], value[:, :, whole:])
    return torch.cat([done, rest], dim=2)


class Network(nn.Module):
    """Linear(c, h), `body`, Linear(h', o). Weights are normal with variance gain / fan-in, biases zero.

    Args:
        deviation: of all weights instead.
    """

    def __init__(
        self, inputs: int, hidden: int, body: nn.Module, last: int, outputs: int, deviation: float | None = None
    ) -> None:
        super().__init__()
        self.entry = nn.Linear(inputs, hidden)
        self.body = body
        self.out = nn.Linear(last, outputs)
        for part in self.modules():
            if isinstance(part, (nn.Linear, nn.Conv1d)):
                if deviation is None:
                    nn.init.kaiming_normal_(part.weight, nonlinearity="linear" if part is self.out else "relu")
                else:
                    nn.init.normal_(part.weight, std=deviation)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def zero_output(self) -> None:
        """Makes the output zero for every input, until it is trained."""
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(G, t, c)` -> `(G, t, o)`."""
        return self.out(self.body(self.entry(tokens)))

    def macs(self, count: int, rows: int) -> int:
        """Multiply-adds of one forward pass over `(count, rows, c)`: projections by token, attention by pair."""
        weights = sum(p.weight.numel() for p in self.modules() if isinstance(p, (nn.Linear, nn.Conv1d)))
        pairs = sum(p.pair_macs(rows) for p in self.modules() if isinstance(p, AttentionLayer))
        return count * (rows * weights + pairs)


class AttentionLayer(nn.Module):
    """A BERT layer: x <- LN(x + attention(x)), x <- LN(x + W2 GELU(W1 x)); feed-forward width 1200 h / 312.

    No position embedding: the order of a factor's rows is that of the model's units, which means nothing. Keys have no
    bias: softmax does not see it.
    """

    def __init__(self, hidden: int, heads: int, window: int | None) -> None:
        super().__init__()
        inner = round(hidden * _TINYBERT_INNER / _TINYBERT_HIDDEN)
        self.heads, self.window = heads, window
        self.queries, self.values = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.keys = nn.Linear(hidden, hidden, bias=False)
        self.mix = nn.Linear(hidden, hidden)
        self.widen, self.narrow = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.first, self.second = nn.LayerNorm(hidden), nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (G, heads, t, h / heads)
            for linear in (self.queries, self.keys, self.values)
        )
        found = attend(query, key, value, self.window)
        x = self.first(x + self.mix(found.transpose(1, 2).flatten(2)))
        return self.second(x + self.narrow(F.gelu(self.widen(x))))

    def pair_macs(self, rows: int) -> int:
        """Multiply-adds of scores and weighted sums over one factor of so many rows."""
        window = rows if self.window is None else min(self.window, rows)
        whole, rest = divmod(rows, window)
        return 2 * self.queries.out_features * (whole * window**2 + rest**2)


class ConvolutionBlock(nn.Module):
    """x <- ReLU(shortcut(x) + LN(conv(ReLU(LN(conv(x)))))), convolutions of 3 neighbouring rows."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one = nn.Conv1d(inputs, outputs, _KERNEL, padding="same")
        self.two = nn.Conv1d(outputs, outputs, _KERNEL, padding="same")
        self.norm_one, self.norm_two = nn.LayerNorm(outputs), nn.LayerNorm(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm_one(self.one(x.mT).mT))
        return F.relu(self.shortcut(x) + self.norm_two(self.two(inner.mT).mT))


def widths(hidden: int, depth: int) -> list[int]:
    """Widths of `depth` layers: a third of them each at h, 2h and 4h, as the paper's 256, 512, 1024."""
    return [hidden * 2 ** (3 * i // depth) for i in range(depth)]


def make_network(
    kind: str,
    inputs: int,
    outputs: int,
    *,
    hidden: int,
    heads: int,
    depth: int,
    window: int | None,
    deviation: float | None = None,
) -> Network:
    """A network of `kind`.

    Args:
        kind: `bert`, `depth` attention layers; `mlp`, `depth` hidden layers with GELU, each row by itself; `cnn`,
            `depth` residual blocks of two convolutions over neighbouring rows.
        hidden: h; for `mlp` and `cnn` the first width of three, see `widths`.
        heads: of `bert`; divides h.
        window: of `bert`; see `attend`. deviation: see `Network`.

    Raises:
        ValueError: unknown kind, or heads that do not divide h.
    """
    if kind == "bert":
        if hidden % heads:
            raise ValueError(f"heads is {heads}, which does not divide hidden = {hidden}: use a divisor")
        layers = [AttentionLayer(hidden, heads, window) for _ in range(depth)]
        return Network(inputs, hidden, nn.Sequential(nn.LayerNorm(hidden), *layers), hidden, outputs, deviation)
    if kind not in KINDS:
        raise ValueError(f"hypernet is {kind!r}: use one of {', '.join(KINDS)}")
    sizes = [hidden, *widths(hidden, depth)]
    body: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        body += [nn.GELU(), nn.Linear(before, after)] if kind == "mlp" else [ConvolutionBlock(before, after)]
    if kind == "mlp":
        body.append(nn.GELU())
    return Network(inputs, hidden, nn.Sequential(*body), sizes[-1], outputs, deviation)
