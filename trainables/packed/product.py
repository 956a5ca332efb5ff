"""One product of the base over all rows, and each trial's factors on its own rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.packed.dropout import kept
from trainables.packed.route import Segment
from trainables.variants.core.shared import LoraPart


@dataclass(frozen=True)
class Use:
    """A segment and its part on one matrix; None where it has none there."""

    segment: Segment
    part: LoraPart | None


@dataclass
class Bank:
    """Neighbouring segments of equally many rows, whose factors are multiplied in one batched product.

    Where ranks differ, or a segment has no factors, rows of A and columns of B are filled with zeros; what comes out of
    those is zero, and their gradients are left out.

    Attributes:
        places: which of the pass's uses they are.
        masks: entries that dropout keeps, `(rows, length, n)`, by place in the bank.
        masked: those places, for who holds the masks elsewhere.
    """

    uses: Sequence[Use]
    places: range
    masks: dict[int, Tensor] = field(default_factory=dict)
    masked: tuple[int, ...] = ()

    def of(self, tensor: Tensor) -> Tensor:
        """Their tokens of a tensor of the pass `(rows, length, width)`, as `(k, tokens, width)`: a view."""
        first, last = self.uses[0].segment.start, self.uses[-1].segment.stop
        return tensor[first:last].view(len(self.uses), -1, tensor.shape[-1])

    def factors(self) -> tuple[Tensor, Tensor]:
        """A `(k, r, n)` and s B `(k, m, r)`."""
        parts = [use.part for use in self.uses]
        return _filled([None if p is None else p.a for p in parts], 0), _filled(
            [None if p is None else p.b * p.scale for p in parts], 1
        )

    def taken(self) -> tuple[Tensor, Tensor] | None:
        """A0 `(k, r, n)` and -s B0 `(k, m, r)` of those that have such; None where none has."""
        pairs = [None if use.part is None or use.part.taken is None else use.part.taken for use in self.uses]
        if all(pair is None for pair in pairs):
            return None
        scaled = [
            None if pair is None or use.part is None else pair[1] * -use.part.scale
            for use, pair in zip(self.uses, pairs, strict=True)
        ]
        return _filled([None if pair is None else pair[0] for pair in pairs], 0), _filled(scaled, 1)

    def draw(self, shape: torch.Size, device: torch.device) -> None:
        """Draw what dropout keeps of the segments' rows, `(rows, length, n)` in all; padding is kept."""
        for at, use in enumerate(self.uses):
            if use.part is None or not use.part.dropout:
                continue
            segment = use.segment
            rows, width = segment.stop - segment.start, segment.width
            own = kept(torch.Size((rows * width, shape[2])), use.part.dropout, segment.adapter.generator, device)
            mask = own.view(rows, width, shape[2])
            self.masks[at] = F.pad(mask, (0, 0, shape[1] - width, 0), value=1) if width < shape[1] else mask

    def dropped(self, tokens: Tensor) -> Tensor:
        """Tokens `(k, t, n)` as dropout leaves them."""
        if not self.masks:
            return tokens
        out = tokens.clone()
        for at, mask in self.masks.items():
            part = self.uses[at].part
            assert part is not None
            out[at] *= mask.view(out[at].shape) / (1 - part.dropout)
        return out


def banks(uses: Sequence[Use]) -> list[Bank]:
    """Uses in the order of their rows, by runs of equally many.

    A run is one by its rows alone, not by what stands in it: a batched product gives each of its parts the same bits
    whatever the others are, but where there are more parts, or one has a larger rank, it may multiply in another order.
    """
    found, first = [], 0
    for _, run in groupby(uses, key=lambda use: use.segment.stop - use.segment.start):
        members = list(run)
        if any(use.part is not None for use in members):
            found.append(Bank(members, range(first, first + len(members))))
        first += len(members)
    return found


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, uses: Sequence[Use], training: bool) -> Tensor:
    """W0 x over all rows plus each use's update on its own, `(rows, length, m)` in x's type.

    A row's result and gradient are made of that row and its own part alone, whatever stands in the others, NaN
    included: no sum runs over rows of two segments, and nothing is masked by multiplication.

    Args:
        x: `(rows, length, n)`. weight: W0 `(m, n)`, frozen. bias: `(m,)`, frozen.
        uses: one for each segment of the pass, in the order of their rows, which are all rows.
    """
    return _PackedLinear.apply(x, weight, bias, weight.shape[0], tuple(uses), training, *_factors(uses))


def packed_update(x: Tensor, width: int, uses: Sequence[Use], training: bool) -> Tensor:
    """As `packed_linear` without the base: each use's update on its own rows, `(rows, length, width)`."""
    return _PackedLinear.apply(x, None, None, width, tuple(uses), training, *_factors(uses))


def _factors(uses: Sequence[Use]) -> list[Tensor]:
    return [factor for use in uses if use.part is not None for factor in (use.part.a, use.part.b)]


class _PackedLinear(torch.autograd.Function):
    """One batched product for each bank; see `banks`.

    For the backward pass it keeps x, which is one tensor for all matrices that read it, masks of dropout as truth
    values and A x, not the dropped inputs of each matrix.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        width: int,
        uses: tuple[Use, ...],
        training: bool,
        *factors: Tensor,
    ) -> Tensor:
        x = x.contiguous()
        out = x.new_zeros(*x.shape[:-1], width) if weight is None else F.linear(x, weight, bias)
        inner: list[Tensor] = []
        held = banks(uses)
        for bank in held:
            if training:
                bank.draw(x.shape, x.device)
            a, b = bank.factors()
            tokens = bank.of(x).to(a.dtype)  # (k, t, n)
            h = torch.bmm(bank.dropped(tokens), a.mT)  # (k, t, r)
            _add(bank.of(out), h, b.mT)
            taken = bank.taken()
            if taken is not None:
                a0, b0 = taken
                _add(bank.of(out), torch.bmm(tokens, a0.mT), b0.mT)
            inner.append(h)
        ctx.banks, ctx.uses = held, uses
        wants_x = any(factor.requires_grad for factor in factors[::2])
        # Where a block is computed again, what is saved here is let go meanwhile; masks held elsewhere would stay.
        masks = [mask for bank in held for mask in bank.masks.values()]
        for bank in held:
            bank.masked, bank.masks = tuple(bank.masks), {}
        ctx.save_for_backward(weight, x if wants_x else None, *inner, *masks)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, x, *kept = ctx.saved_tensors
        inner, masks = kept[: len(ctx.banks)], iter(kept[len(ctx.banks) :])
        for bank in ctx.banks:
            bank.masks = {at: next(masks) for at in bank.masked}
        grad = grad.contiguous()
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad.new_zeros(*grad.shape[:-1], _columns(ctx.banks)) if weight is None else grad @ weight
        found: dict[int, tuple[Tensor | None, Tensor]] = {}
        for bank, h in zip(ctx.banks, inner, strict=True):
            a, b = bank.factors()
            g = bank.of(grad).to(b.dtype)  # (k, t, m)
            grad_h = torch.bmm(g, b)  # (k, t, r)
            grads_b = torch.bmm(h.mT, g)  # (k, r, m): the longer side last is quicker
            grads_a = None if x is None else torch.bmm(grad_h.mT, bank.dropped(bank.of(x).to(a.dtype)))  # (k, r, n)
            for at, place in enumerate(bank.places):
                part: LoraPart | None = bank.uses[at].part
                if part is not None:
                    rank = len(part.a)
                    own = None if grads_a is None else grads_a[at, :rank]
                    found[place] = own, grads_b[at, :rank].T * part.scale
            if grad_x is None:
                continue
            if bank.masks:
                _put(bank.of(grad_x), bank.dropped(torch.bmm(grad_h, a)))
            else:
                _add(bank.of(grad_x), grad_h, a)
            taken = bank.taken()
            if taken is not None:
                a0, b0 = taken
                _add(bank.of(grad_x), torch.bmm(g, b0), a0)
        grads = [
            own if needed else None
            for own, needed in zip(
                (one for place in sorted(found) for one in found[place]), ctx.needs_input_grad[6:], strict=True
            )
        ]
        return grad_x, None, None, None, None, None, *grads


def _columns(held: Sequence[Bank]) -> int:
    """n of the matrix."""
    return next(use.part.a.shape[1] for bank in held for use in bank.uses if use.part is not None)


def _filled(factors: Sequence[Tensor | None], side: int) -> Tensor:
    """Factors one above the other, each filled with zeros to the largest rank, which is their side 0 or 1."""
    there = [factor for factor in factors if factor is not None]
    rank = max(factor.shape[side] for factor in there)
    if len(there) == len(factors) and all(factor.shape[side] == rank for factor in there):
        return torch.stack(there)
    like = there[0]
    shape = (rank, like.shape[1]) if side == 0 else (like.shape[0], rank)
    bank = like.new_zeros(len(factors), *shape)
    for at, factor in enumerate(factors):
        if factor is not None:
            bank[at].narrow(side, 0, factor.shape[side]).copy_(factor)
    return bank


def _add(out: Tensor, h: Tensor, b: Tensor) -> None:
    """out `(k, t, m)` += h `(k, t, r)` b `(k, r, m)`, in place."""
    if out.dtype == h.dtype:
        out.baddbmm_(h, b)
    else:
        _put(out, torch.bmm(h, b))


def _put(out: Tensor, more: Tensor) -> None:
    """out += more, in more's type and rounded once."""
    if out.dtype == more.dtype:
        out += more
    else:
        out.copy_(out + more)
