"""One product of the base over all rows, and each trial's factors on its own rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.packed.dropout import kept
from trainables.packed.route import Segment
from trainables.variants.core.shared import LoraPart


@dataclass(frozen=True)
class Use:
    """A segment and its part on one matrix."""

    segment: Segment
    part: LoraPart

    def view(self, tensor: Tensor) -> Tensor:
        """The segment's tokens of a tensor of the pass `(rows, length, width)`."""
        first, last, width = self.segment.start, self.segment.stop, self.segment.width
        return tensor[first:last, tensor.shape[1] - width :] if width else tensor[first:last]


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, uses: Sequence[Use], training: bool) -> Tensor:
    """W0 x over all rows plus each use's update on its own, `(rows, length, m)` in x's type.

    A row's result and gradient depend on that row and its own part alone, whatever stands in the others, NaN included:
    no sum runs over rows of two segments, and nothing is masked by multiplication.

    Args:
        x: `(rows, length, n)`. weight: W0 `(m, n)`, frozen. bias: `(m,)`, frozen.
    """
    factors = [factor for use in uses for factor in (use.part.a, use.part.b)]
    return _PackedLinear.apply(x, weight, bias, tuple(uses), training, *factors)


class _PackedLinear(torch.autograd.Function):
    """Each segment in turn: thin products on the CPU are as quick as one batched product over copies of all factors.

    For the backward pass it keeps x, which is one tensor for all matrices that read it, masks of dropout as truth
    values and A x, not the dropped inputs of each matrix.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        uses: tuple[Use, ...],
        training: bool,
        *factors: Tensor,
    ) -> Tensor:
        out = F.linear(x, weight, bias)
        inner: list[Tensor] = []
        masks: list[Tensor | None] = []
        for use in uses:
            part = use.part
            tokens = _flat(use.view(x)).to(part.a.dtype)  # (t, n)
            dropping = training and part.dropout > 0
            generator = use.segment.adapter.generator
            mask = kept(tokens.shape, part.dropout, generator, tokens.device) if dropping else None
            h = _dropped(tokens, mask, part.dropout) @ part.a.T  # (t, r)
            _add(use.view(out), h, part.b, part.scale)
            if part.taken is not None:
                a0, b0 = part.taken
                _add(use.view(out), tokens @ a0.T, b0, -part.scale)
            inner.append(h)
            masks.append(mask)
        ctx.uses, ctx.masks = uses, masks
        wants_x = any(factor.requires_grad for factor in factors[::2])
        ctx.save_for_backward(weight, x if wants_x else None, *inner)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, x, *inner = ctx.saved_tensors
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        grads: list[Tensor | None] = []
        for i, (use, mask, h) in enumerate(zip(ctx.uses, ctx.masks, inner, strict=True)):
            part: LoraPart = use.part
            wants_a, wants_b = ctx.needs_input_grad[5 + 2 * i : 7 + 2 * i]
            g = _flat(use.view(grad)).to(part.b.dtype)  # (t, m)
            grad_h = (g @ part.b).mul_(part.scale)  # (t, r)
            tokens = None if x is None else _dropped(_flat(use.view(x)).to(part.a.dtype), mask, part.dropout)
            grads.append(grad_h.T @ tokens if wants_a and tokens is not None else None)
            grads.append((g.T @ h).mul_(part.scale) if wants_b else None)
            if grad_x is None:
                continue
            if mask is None:
                _add(use.view(grad_x), grad_h, part.a.T, 1.0)
            else:
                own = use.view(grad_x)
                own += _dropped(grad_h @ part.a, mask, part.dropout).view(own.shape).to(own.dtype)
            if part.taken is not None:
                a0, b0 = part.taken
                _add(use.view(grad_x), g @ b0, a0.T, -part.scale)
        return grad_x, None, None, None, None, *grads


def _flat(tokens: Tensor) -> Tensor:
    return tokens.reshape(-1, tokens.shape[-1])


def _dropped(tokens: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    return tokens if mask is None else tokens * (mask / (1 - dropout))


def _add(out: Tensor, h: Tensor, b: Tensor, scale: float) -> None:
    """out `(rows, length, m)` += scale h B^T, in place; h `(t, r)`, B `(m, r)`."""
    if out.dtype == h.dtype and out.is_contiguous():
        out.view(-1, out.shape[-1]).addmm_(h, b.T, alpha=scale)
    else:
        # In the factors' type, and rounded once.
        out.copy_(out + (h @ b.T).mul_(scale).view(out.shape))
