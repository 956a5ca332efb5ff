"""Slices of W = U S V^T, and a linear layer that trains one of them at about LoRA's cost.

Notation. W0 is (m, n), k = min(m, n), and its singular triplets j = 0 .. k - 1 go from the largest value to the
smallest.

    r, s             a strategy: r consecutive triplets at position s
    primary          triplets [0, r)
    middle           triplets [k // 2, k // 2 + r), moved down where they would pass the end
    minor            triplets [k - r, k)
    c                triplets that some strategy can choose: the union over all candidates, in order
    T      (c, m + 1 + n)  the trained numbers, fp32: row j is (u_j, sigma_j, v_j)
    T0                     the same rows at the start
    t                triplets touched so far: those that some strategy has chosen

Rows may start as (sqrt(sigma_j) u_j, 1, sqrt(sigma_j) v_j) instead (`balanced`), which is the same product. Adam moves
every number by about the rate, so what it does to D goes with sigma_j, and with its root in that form: the positions
are less of a step size.

The effective weight is W = W0 + D, where D = sum over touched j of u_j sigma_j v_j^T - u0_j sigma0_j v0_j^T. W0 itself
is never written to: D is kept in fp32 as T and T0, so nothing of it is lost, and the forward pass adds it as a pair of
factors with 2 t rows, in the base's type,

    L (2t, m) = [u_j - u0_j ; u0_j],   R (2t, n) = [sigma_j v_j ; sigma_j v_j - sigma0_j v0_j],   D = L^T R.

Each product holds one small factor, so nothing cancels when L and R are rounded. A change added to a bf16 W0 would be
lost until it exceeds half a unit in the last place of the weight, step after step; D adds up. What a forward pass in
bf16 shows of D X is another matter: it is rounded with W0 X, as every adapter's part is.

Gradients. With G = dL/dY and P = X V_T^T, Q = G U_T^T for the slice's rows,

    dL/dU_T = S P^T G,   dL/dV_T = S Q^T X,   dL/dsigma = column sums of P * Q,   dL/dX = G (W0 + D),

so neither the forward pass nor the backward pass forms anything of size (m, n), and the forward pass does not touch
the slice at all: its value is in W already.

Zhou et al., LeLoRA: Learnable Low-Rank Adaptation of Large Language Models, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from trainables.variants.core.matrices import Matrix

POSITIONS = ("primary", "middle", "minor")


def window(position: str, r: int, k: int) -> range:
    """The r triplets of k at a position. `position` is one of `POSITIONS`; 0 <= r <= k."""
    start = {"primary": 0, "middle": min(k // 2, k - r), "minor": k - r}[position]
    return range(start, start + r)


def choosable(positions: Sequence[str], most: int, k: int) -> list[int]:
    """Triplets that a strategy of at most `most` triplets at one of the positions can choose, in order."""
    return sorted({j for position in positions for j in window(position, min(most, k), k)})


class SliceLinear(torch.autograd.Function):
    """Y = X (W0 + L^T R)^T + bias, with gradients for rows [start, stop) of T and for X; see the module.

    Args of `apply`: X `(..., n)`, T `(c, m + 1 + n)` fp32, W0 `(m, n)`, bias `(m,)` or None, L and R or None, start and
    stop in rows of T. Returns `(..., m)`. dL/dT is zero outside the slice and None for an empty one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        triplets: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        left: Tensor | None,
        right: Tensor | None,
        start: int,
        stop: int,
    ) -> Tensor:
        y = F.linear(x, weight, bias)
        if left is not None and right is not None:
            flat = x.reshape(-1, x.shape[-1])
            # In place: y is fresh, and nothing else holds it.
            y.view(-1, y.shape[-1]).addmm_(flat @ right.T, left)
        trains = stop > start and triplets.requires_grad
        ctx.save_for_backward(x if trains else None, triplets, weight, left, right)
        ctx.start, ctx.stop = start, stop
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, triplets, weight, left, right = ctx.saved_tensors
        (grad,) = grads
        flat = grad.reshape(-1, grad.shape[-1])  # (tokens, m)
        into_x = into_triplets = None
        if ctx.needs_input_grad[0]:
            into_x = flat @ weight  # (tokens, n)
            if left is not None:
                into_x.addmm_(flat @ left.T, right)
            into_x = into_x.view(*grad.shape[:-1], weight.shape[1])
        if ctx.needs_input_grad[1] and ctx.stop > ctx.start:
            into_triplets = torch.zeros_like(triplets)
            _slice_gradient(
                x.reshape(-1, x.shape[-1]),
                flat,
                triplets[ctx.start : ctx.stop],
                into_triplets[ctx.start : ctx.stop],
            )
        return into_x, into_triplets, None, None, None, None, None, None


def _slice_gradient(x: Tensor, grad: Tensor, rows: Tensor, out: Tensor) -> None:
    """Writes dL/d(u, sigma, v) `(r, m + 1 + n)` of `rows` to `out`, from X `(tokens, n)` and G `(tokens, m)`.

    In fp32: AdamW's first steps take the sign of a gradient, which bf16 products get wrong where it is small.
    """
    m = grad.shape[1]
    u, sigma, v = rows[:, :m], rows[:, m : m + 1], rows[:, m + 1 :]
    x, grad = x.to(rows.dtype), grad.to(rows.dtype)
    p, q = x @ v.T, grad @ u.T  # (tokens, r) both
    torch.mul(p.T @ grad, sigma, out=out[:, :m])
    torch.sum(p * q, dim=0, out=out[:, m])
    torch.mul(q.T @ x, sigma, out=out[:, m + 1 :])


class SlicedLinear(nn.Module):
    """A linear layer (or transformers' `Conv1D`) some of whose singular triplets are trained.

    Args:
        matrix: the matrix to adapt; its module becomes `base_layer`.
        indices: the c triplets that can be chosen, in order.
        u, sigma, v: those triplets, `(m, c)`, `(c,)`, `(n, c)`, fp32.
        balanced: whether sigma starts in the vectors, a root of it in each.
    """

    initial: Tensor

    def __init__(
        self, matrix: Matrix, indices: Sequence[int], u: Tensor, sigma: Tensor, v: Tensor, balanced: bool = False
    ) -> None:
        super().__init__()
        self.base_layer = matrix.module
        self.rows, self.columns = matrix.rows, matrix.columns
        self._transposed = matrix.transposed
        self.indices = list(indices)
        if balanced:
            root = sigma.clamp_min(0).sqrt()
            u, sigma, v = u * root, torch.ones_like(sigma), v * root
        start = torch.cat([u.T, sigma[:, None], v.T], dim=1).contiguous()  # (c, m + 1 + n)
        self.register_buffer("initial", start, persistent=False)
        self.triplets = nn.Parameter(start.clone())
        self.touched: list[int] = []  # rows of T, in order
        self.active = (0, 0)  # rows of T that are trained now
        self._slots = (0, 0)  # where those rows are among the touched ones
        self.left: Tensor | None = None
        self.right: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The base's weight: model code asks layers for its type and device."""
        return self.base_layer.weight

    def choose(self, triplets: range) -> None:
        """Trains these triplets (of the k) from now on; an empty range trains none. What was trained stays."""
        start = self.indices.index(triplets.start) if triplets else 0
        self.active = (start, start + len(triplets))
        touched = sorted({*self.touched, *range(*self.active)})
        first = touched.index(start) if triplets else 0
        self._slots = (first, first + len(triplets))
        if len(touched) != len(self.touched):
            self.touched = touched
            self.rebuild()

    @torch.no_grad()
    def rebuild(self) -> None:
        """L and R of all touched triplets, anew."""
        if not self.touched:
            self.left = self.right = None
            return
        self.left, self.right = (part.to(self.weight.dtype) for part in self.factors())

    @torch.no_grad()
    def refresh(self) -> None:
        """L and R after the trained triplets have moved."""
        start, stop = self.active
        if start == stop or self.left is None or self.right is None:
            return
        (low, high), t, m = self._slots, len(self.touched), self.rows
        now, then = self.triplets[start:stop], self.initial[start:stop]
        self.left[low:high] = now[:, :m] - then[:, :m]
        scaled = now[:, m : m + 1] * now[:, m + 1 :]
        self.right[low:high] = scaled
        self.right[t + low : t + high] = scaled - then[:, m : m + 1] * then[:, m + 1 :]

    def factors(self) -> tuple[Tensor, Tensor]:
        """L `(2t, m)` and R `(2t, n)` in fp32: D = L^T R."""
        now, then, m = self.triplets.detach()[self.touched], self.initial[self.touched], self.rows
        scaled = now[:, m : m + 1] * now[:, m + 1 :]
        left = torch.cat([now[:, :m] - then[:, :m], then[:, :m]])
        return left, torch.cat([scaled, scaled - then[:, m : m + 1] * then[:, m + 1 :]])

    def magnitudes(self) -> Tensor:
        """|sigma_j| |u_j| |v_j| of the choosable triplets as they are now, `(c,)`.

        These are their singular values as long as the trained vectors are orthogonal, which training only nearly keeps.
        """
        now, m = self.triplets.detach(), self.rows
        return now[:, m].abs() * now[:, :m].norm(dim=1) * now[:, m + 1 :].norm(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.T if self._transposed else self.weight
        return SliceLinear.apply(x, self.triplets, weight, self.base_layer.bias, self.left, self.right, *self.active)


@contextmanager
def all_choosable(layers: Sequence[SlicedLinear]) -> Iterator[None]:
    """Within, backward passes reach every triplet that can be chosen, not the slice in force alone."""
    held = [layer.active for layer in layers]
    for layer in layers:
        layer.active = (0, len(layer.indices))
    try:
        yield
    finally:
        for layer, active in zip(layers, held, strict=True):
            layer.active = active
