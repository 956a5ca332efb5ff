"""Several adapters over the rows of one batch of an evaluation, in whatever order the rows stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from trainables.packed.route import Adapter
from trainables.variants.core.shared import LoraPart

# A of each adapter `(k, n, r)` and s B `(k, r, m)`, filled with zeros where ranks differ.
Factors = tuple[Tensor, Tensor]


class Mixture:
    """Which rows of the batches that the model is called with are whose. Nothing is trained through it.

    Rows may leave a batch and change places at each call: `assign` says how they stand before the next one. As long as
    it has not been called, all rows are the first adapter's.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self.adapters = list(adapters)
        self._factors: dict[str, Factors | None] = {}
        self.assign([])

    def assign(self, owners: Sequence[int]) -> None:
        """Say whose the rows of the next calls are, `(rows,)`: places among the adapters."""
        self._runs = [(owner, len(list(run))) for owner, run in groupby(owners)] if owners else []
        self._owners = owners
        self._indices: tuple[Tensor, Tensor] | None = None

    def whole(self, name: str) -> bool:
        """Whether an adapter's update of this matrix is a layer of its own."""
        return any(name in adapter.layers for adapter in self.adapters)

    def add(self, out: Tensor, x: Tensor, name: str) -> None:
        """Add the factors' updates of x `(rows, length, n)` to W0 x `(rows, length, m)`, in place."""
        factors = self.factors(name)
        if factors is None:
            return
        a, b = factors
        if len(self._runs) <= len(self.adapters):
            for owner, rows in self.slices(len(x)):
                tokens = x[rows].to(a.dtype).flatten(0, 1)
                _put(out[rows].flatten(0, 1), tokens @ a[owner], b[owner])
            return
        # Each adapter's rows one above the other, the first one's repeated where it has fewer than the others.
        take, back = self._places(x.device)
        tokens = x[take].to(a.dtype).view(len(a), -1, x.shape[-1])
        own = torch.bmm(torch.bmm(tokens, a), b).view(take.numel(), x.shape[1], -1)
        out += own[back].to(out.dtype)

    def through_layers(self, out: Tensor, x: Tensor, name: str) -> None:
        """Put the rows of those whose update is a layer of its own through that layer, in place."""
        for owner, rows in self._selections(len(x), x.device):
            if name in self.adapters[owner].layers:
                layer, given = self.adapters[owner].layers[name]
                # Of its own: some layers add to it in place.
                given.product = out[rows].clone()
                try:
                    out[rows] = layer(x[rows])
                finally:
                    given.product = None

    def slices(self, count: int) -> Iterator[tuple[int, slice]]:
        """The runs of one adapter's rows."""
        first = 0
        for owner, length in self._runs or [(0, count)]:
            yield owner, slice(first, first + length)
            first += length

    def factors(self, name: str) -> Factors | None:
        """Of a matrix; None where no adapter has any there."""
        if name not in self._factors:
            parts = [adapter.parts.get(name) for adapter in self.adapters]
            self._factors[name] = None if all(part is None for part in parts) else _bank(parts)
        return self._factors[name]

    def _selections(self, count: int, device: torch.device) -> Iterator[tuple[int, slice | Tensor]]:
        """Each adapter's rows, once."""
        if len(self._runs) <= len(self.adapters):
            yield from self.slices(count)
            return
        for owner in sorted(set(self._owners)):
            places = [place for place, other in enumerate(self._owners) if other == owner]
            yield owner, torch.tensor(places, device=device)

    def _places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """For each adapter as many rows as the one with most has, `(k * most,)`, and where each row is among those."""
        if self._indices is None:
            rows: list[list[int]] = [[] for _ in self.adapters]
            for place, owner in enumerate(self._owners):
                rows[owner].append(place)
            most = max(map(len, rows))
            back = [0] * len(self._owners)
            for owner, own in enumerate(rows):
                for at, place in enumerate(own):
                    back[place] = owner * most + at
            take = [place for own in rows for place in own + [0] * (most - len(own))]
            self._indices = torch.tensor(take, device=device), torch.tensor(back, device=device)
        return self._indices


def _bank(parts: Sequence[LoraPart | None]) -> Factors:
    """Factors of one matrix, what was taken out of the base among them."""
    there = [part for part in parts if part is not None]
    rank = max(len(part.a) + (0 if part.taken is None else len(part.taken[0])) for part in there)
    like = there[0]
    with torch.no_grad():
        a = like.a.new_zeros(len(parts), like.a.shape[1], rank)
        b = like.b.new_zeros(len(parts), rank, len(like.b))
        for at, part in enumerate(parts):
            if part is None:
                continue
            own = len(part.a)
            a[at, :, :own], b[at, :own] = part.a.T, part.b.T * part.scale
            if part.taken is not None:
                a0, b0 = part.taken
                a[at, :, own : own + len(a0)], b[at, own : own + len(a0)] = a0.T, b0.T * -part.scale
    return a, b


def _put(out: Tensor, h: Tensor, b: Tensor) -> None:
    """out `(t, m)`, a view, += h `(t, r)` b `(r, m)`."""
    if out.dtype == h.dtype:
        out.addmm_(h, b)
    else:
        out += (h @ b).to(out.dtype)
