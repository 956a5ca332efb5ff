"""LoFT's optimizer against full fine-tuning's AdamW, computed on whole matrices.

In fp64: where a row of second moments cancels to almost nothing, fp32 leaves a few digits of the step.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trainables.variants.loft import LoftAdamW

BETAS, EPS = (0.9, 0.999), 1e-8


def problem(rows: int, columns: int, rank: int, scale: float = 2.0) -> tuple[nn.Parameter, nn.Parameter, Tensor, float]:
    """A, B, and a target; the loss is a sum of fourth powers, so that gradients do not only shrink."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    a, b = nn.Parameter(draw(rank, columns)), nn.Parameter(0.5 * draw(rows, rank))
    return a, b, draw(rows, columns), scale


def loss(weight: Tensor, target: Tensor, step: int) -> Tensor:
    spread = 1 + 0.5 * math.sin(step)  # another batch each step
    return ((weight - spread * target) ** 4).mean()


def optimizer(a: nn.Parameter, b: nn.Parameter, scale: float, decay: float = 0.0, lr: float = 0.02) -> LoftAdamW:
    group = {"params": [a, b], "lr": lr, "weight_decay": decay}
    return LoftAdamW([group], [(a, b, scale)], betas=BETAS, eps=EPS)


def projector(factor: Tensor) -> Tensor:
    """Onto the space of a factor's columns `(q, r)`, in fp64."""
    q, _ = torch.linalg.qr(factor.double())
    return q @ q.T


def test_steps_are_full_adamws_projected_onto_the_fixed_factors_space() -> None:
    a, b, target, scale = problem(6, 5, 2)
    loft = optimizer(a, b, scale, decay=0.1)
    # Full fine-tuning's moments of W (for B) and of W^T (for A), each past gradient seen through the spaces of
    # all steps since: M <- b1 M P + (1 - b1) G P, and per row the outer products S_i <- b2 P S_i P + .. .
    moments = {"b": torch.zeros(6, 5).double(), "a": torch.zeros(5, 6).double()}
    products = {"b": torch.zeros(6, 5, 5).double(), "a": torch.zeros(5, 6, 6).double()}
    for step in range(9):
        weight = (scale * b @ a).detach().requires_grad_()
        loss(weight, target, step).backward()
        assert weight.grad is not None
        whole = weight.grad.double()
        for key, gradient, other in (("b", whole, a.detach().T), ("a", whole.T, b.detach())):
            p = projector(other)
            seen = gradient @ p
            moments[key] = 0.9 * moments[key] @ p + 0.1 * seen
            outer = seen[:, :, None] * seen[:, None, :]
            products[key] = 0.999 * p @ products[key] @ p + 0.001 * outer
        key, other, mover = ("a", b, a.T) if step % 2 else ("b", a.T, b)
        variance = products[key].diagonal(dim1=1, dim2=2) / (1 - 0.999 ** (step + 1))
        direction = moments[key] / (1 - 0.9 ** (step + 1)) / (variance.clamp_min(0).sqrt() + EPS)
        decayed = (1 - 0.02 * 0.1) * scale * mover.detach().double() @ other.detach().double().T
        expected = decayed - 0.02 * direction @ projector(other.detach())

        loss(scale * b @ a, target, step).backward()
        loft.step()
        loft.zero_grad()
        product = scale * (b @ a).detach().double()
        torch.testing.assert_close(product.T if step % 2 else product, expected, atol=1e-6, rtol=1e-6)


def test_first_step_is_full_adamws_own_where_the_factor_spans_everything() -> None:
    a, b, target, scale = problem(6, 4, 4)
    weight = nn.Parameter((scale * b @ a).detach().clone())
    loss(weight, target, 0).backward()
    full = torch.optim.AdamW([weight], lr=0.02, betas=BETAS, eps=EPS, weight_decay=0.0)
    full.step()
    loss(scale * b @ a, target, 0).backward()
    optimizer(a, b, scale).step()
    torch.testing.assert_close((scale * b @ a).detach(), weight.detach(), atol=1e-6, rtol=1e-6)


def test_full_rank_limit_is_adamw_on_the_weight() -> None:
    a, b, target, scale = problem(4, 4, 4)
    weight = nn.Parameter((scale * b @ a).detach().clone())
    full = torch.optim.AdamW([weight], lr=0.02, betas=BETAS, eps=EPS, weight_decay=0.1)
    loft = optimizer(a, b, scale, decay=0.1)
    for step in range(12):
        loss(weight, target, step).backward()
        full.step()
        full.zero_grad()
        loss(scale * b @ a, target, step).backward()
        loft.step()
        loft.zero_grad()
    torch.testing.assert_close((scale * b @ a).detach(), weight.detach(), atol=1e-6, rtol=1e-6)


def test_factors_move_in_turns_and_one_that_is_zero_can_start() -> None:
    a, b, target, scale = problem(6, 5, 2)
    with torch.no_grad():
        b.zero_()
    loft = optimizer(a, b, scale)
    for step in range(4):
        before = a.detach().clone(), b.detach().clone()
        loss(scale * b @ a, target, step).backward()
        loft.step()
        loft.zero_grad()
        assert [torch.equal(x, y) for x, y in zip(before, (a, b), strict=True)] == ([1, 0] if step % 2 == 0 else [0, 1])
        assert a.isfinite().all() and b.isfinite().all()


def test_clipping_sees_the_norm_of_the_projected_gradient_and_scales_both_moments() -> None:
    norms, states = [], []
    for limit in (None, 0.25):
        a, b, target, scale = problem(6, 5, 2)
        weight = (scale * b @ a).detach().requires_grad_()
        loss(weight, target, 0).backward()
        assert weight.grad is not None
        projected = weight.grad.double() @ projector(a.detach().T)
        loft = optimizer(a, b, scale)
        loss(scale * b @ a, target, 0).backward()
        loft.project_gradients()
        norm = nn.utils.clip_grad_norm_([a, b], math.inf if limit is None else limit * float(projected.norm()))
        norms.append(float(norm / projected.norm()))
        loft.step()
        states.append([loft.state[p]["moment"] for p in (a, b)])
    assert norms == pytest.approx([1.0, 1.0], rel=1e-5)
    for free, clipped in zip(*states, strict=True):
        torch.testing.assert_close(clipped, 0.25 * free, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("scale", [0.5, 8.0])
def test_steps_of_the_weight_do_not_depend_on_alpha(scale: float) -> None:
    results = []
    for s in (1.0, scale):
        a, b, target, _ = problem(6, 5, 2)
        with torch.no_grad():
            b.div_(s)  # the same start of W
        loft = optimizer(a, b, s)
        for step in range(5):
            loss(s * b @ a, target, step).backward()
            loft.step()
            loft.zero_grad()
        results.append((s * b @ a).detach())
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-6)
