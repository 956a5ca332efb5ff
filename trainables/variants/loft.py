"""LoFT: LoRA whose optimizer takes the steps that AdamW would take on the whole matrix.

Notation. One factor moves per step, the other spans its space. U `(p, r)` is the factor whose moments are
meant and V `(q, r)` the other one, times s: for B, U = B and V = s A^T; for A, U = A^T and V = s B, on the
transposed matrix. dW = U V^T either way.

    K      (r, r)   V^T V
    g      (p, r)   dL/dU K^-1; g V^T is the gradient of W projected onto the space of V
    C      (r, r)   V_prev^T V K^-1, which carries what was expressed in V_prev over to V
    m      (p, r)   first moment, in the coordinates of V
    P_i    (r, r)   second moment of row i, sum of outer products, in the same coordinates
    k               r (r + 1) / 2, the entries of a symmetric P_i that are stored

Tastan et al., LoFT: Low-Rank Adaptation That Behaves Like Full Fine-Tuning, arXiv 2505.21289, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.costs import Benchmark
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.options import check_number
from trainables.variants.core.peft_variant import PeftVariant

CUTOFF = 1e-6  # of K's largest eigenvalue; smaller ones belong to directions that V does not span


class Loft(PeftVariant):
    """W = W0 + s B A, trained by `LoftAdamW`. B moves at even steps, A at odd ones.

    alpha scales the start of A only as seen by W; the steps of W do not depend on it, which is the paper's
    claim that LoFT needs no alpha. Beyond LoRA's optimizer state it keeps r (r + 1) / 2 numbers per row and
    column, so it is meant for small ranks.

    `eps` is AdamW's: here it stands beside the second moment of single entries of W, whose gradients are far smaller
    than those of the factors. The authors' code has 1e-4, which bounds the steps of entries without much of a gradient.
    """

    name = "loft"
    summary = "LoRA under an optimizer that takes AdamW's steps of the whole matrix, projected"
    paper = "arXiv 2505.21289"
    parameters = "r (m + n)"
    float32_only = True
    shares_pass = "factors"
    scale_rule = "1"
    rate_of = "full"  # its steps are those of full fine-tuning, which curvature at the start does not show
    runs_on = frozenset({"hosted", "ddp", "fsdp"})
    not_elsewhere = "its optimizer reads whole factors and gradients, which DeepSpeed partitions"
    options = {"eps": 1e-8}
    benchmark = Benchmark(cycle=2)  # one factor moves at even steps, the other at odd ones

    @classmethod
    def check_options(cls, config: AdapterConfig, matrices: Sequence[Matrix]) -> None:
        check_number(cls, config, "eps", lambda value: 0 < value <= 1, "use a number above 0, up to 1")

    def make_optimizer(self) -> LoftAdamW:
        pairs = [(*self.factors(matrix.name), self.scale(matrix.name)) for matrix in self.matrices]
        self.optimizer = LoftAdamW(self.param_groups(), pairs, eps=self.option("eps"))
        return self.optimizer

    def after_backward(self, step: int) -> None:
        if "optimizer" in self.__dict__:
            self.optimizer.project_gradients()


@dataclass
class _Projection:
    """What `project_gradients` leaves for `step`, per pair: K^-1 of both factors, K^-1/2 of the moving one."""

    inverse: list[Tensor]
    root: list[Tensor]
    idle: list[Tensor | None]  # g of the factor that rests
    norm: Tensor


class LoftAdamW(torch.optim.Optimizer):
    """AdamW on W0 + s B A as it would be on W, within what one factor can express.

        m <- b1 m C + (1 - b1) g
        P_i <- b2 C^T P_i C + (1 - b2) g_i^T g_i
        M = m V^T,  v_ij = V_j P_i V_j^T                         both (p, q)
        D = bias-corrected M / (sqrt(v) + eps)
        U <- (1 - lr decay) U - lr D V K^-1

    Moments of both factors see every gradient; one factor moves per step. With r = m = n that is AdamW on W.

    `project_gradients` puts dL/dU K^-1/2 in the place of the moving factor's gradient and takes the other's
    away: the norm of what is there is the norm of the projected gradient g V^T of W, so that clipping it, by
    any means that scales it, clips as full fine-tuning does. `step` calls it where nobody has.

    Args:
        groups: parameter groups; learning rate and weight decay are read from them.
        pairs: (A `(r, n)`, B `(m, r)`, s) of each matrix, all of one rank.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        pairs: Sequence[tuple[nn.Parameter, nn.Parameter, float]],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(groups, {"lr": 1e-3, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.pairs = list(pairs)
        self._projection: _Projection | None = None

    def _steps(self) -> int:
        return int(self.state[self.pairs[0][1]].get("step", 0))

    def _roles(self) -> tuple[bool, list[nn.Parameter], list[nn.Parameter]]:
        """Whether A moves, the moving factors, and the others."""
        a, b = [pair[0] for pair in self.pairs], [pair[1] for pair in self.pairs]
        return (True, a, b) if self._steps() % 2 else (False, b, a)

    @torch.no_grad()
    def project_gradients(self) -> None:
        """See the class. To be called once per step, on whole gradients, before they are clipped."""
        moves_a, moving, resting = self._roles()
        scales = [pair[2] for pair in self.pairs]
        dtype = moving[0].dtype
        inverse, root = _inverse_and_root(_spans(resting, scales, rows=not moves_a), dtype)
        idle_inverse, _ = _inverse_and_root(_spans(moving, scales, rows=moves_a), dtype)
        idle: list[Tensor | None] = []
        for index, (mover, other) in enumerate(zip(moving, resting, strict=True)):
            if mover.grad is None or other.grad is None:
                idle.append(None)
                continue
            idle.append(_upright(other.grad, not moves_a) @ idle_inverse[index])
            mover.grad = _upright(_upright(mover.grad, moves_a) @ root[index], moves_a).contiguous()
            other.grad = None
        there = [p.grad for p in moving if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(there)).norm() if there else torch.zeros(())
        self._projection = _Projection(inverse, root, idle, norm)

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        """One step from the gradients that are there; a closure is not called."""
        if self._projection is None:
            self.project_gradients()
        held, self._projection = self._projection, None
        assert held is not None
        moves_a, moving, resting = self._roles()
        there = [p.grad for p in moving if p.grad is not None]
        if not there:
            return
        clipped = torch.stack(torch._foreach_norm(there)).norm() / held.norm.clamp_min(1e-38)
        group_of = {id(p): group for group in self.param_groups for p in group["params"]}
        buffers: dict[object, tuple[Tensor, Tensor]] = {}
        for index, (mover, other) in enumerate(zip(moving, resting, strict=True)):
            group, rested = group_of[id(mover)], held.idle[index]
            if rested is None or mover.grad is None:
                continue
            scale = self.pairs[index][2]
            u, v = _upright(mover, moves_a), _upright(other, not moves_a) * scale  # (p, r), (q, r)
            gradient = _upright(mover.grad, moves_a) @ held.root[index]
            state, step = self._advance(mover, u, gradient, v, held.inverse[index], group["betas"])
            self._advance(other, _upright(other, not moves_a), rested * clipped, None, None, group["betas"])
            direction = _direction(state, v, step, group["betas"], group["eps"], buffers)
            change = (direction @ v) @ held.inverse[index]  # (p, r)
            # What the other's moments are expressed in until it moves.
            self.state[other]["basis"] = (u * scale).clone()
            u.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=group["lr"])

    def _advance(
        self,
        parameter: nn.Parameter,
        u: Tensor,
        gradient: Tensor,
        v: Tensor | None,
        inverse: Tensor | None,
        betas: tuple[float, float],
    ) -> tuple[dict[str, object], int]:
        """Carries the moments over to V, where V has changed, and takes in g `(p, r)`. Returns state and step."""
        state, rank = self.state[parameter], u.shape[1]
        if not state:
            state["step"] = 0
            state["moment"] = torch.zeros_like(u, memory_format=torch.contiguous_format)
            state["products"] = u.new_zeros(u.shape[0], rank * (rank + 1) // 2)
        if v is not None and inverse is not None and "basis" in state:
            carry = state.pop("basis").T @ v @ inverse  # C
            state["moment"] = state["moment"] @ carry
            state["products"] = state["products"] @ _carry_products(carry)
        state["step"] += 1
        state["moment"].mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
        i, j = torch.triu_indices(rank, rank, device=u.device)
        state["products"].mul_(betas[1]).addcmul_(gradient[:, i], gradient[:, j], value=1 - betas[1])
        return state, state["step"]


def _upright(factor: Tensor, transposed: bool) -> Tensor:
    """A `(r, n)` as `(n, r)`; B as it is."""
    return factor.T if transposed else factor


def _spans(factors: Sequence[Tensor], scales: Sequence[float], rows: bool) -> Tensor:
    """K of each factor as the fixed one, `(N, r, r)` in fp64: s^2 A A^T where it has its r in rows, else s^2 B^T B."""
    doubles = [factor.double() * scale for factor, scale in zip(factors, scales, strict=True)]
    return torch.stack([f @ f.T if rows else f.T @ f for f in doubles])


def _inverse_and_root(grams: Tensor, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Pseudo-inverses of K `(N, r, r)` and their symmetric square roots, computed in fp64."""
    values, vectors = torch.linalg.eigh(grams)
    spanned = values > CUTOFF * values[:, -1:].clamp_min(1e-300)
    roots = torch.where(spanned, values.clamp_min(1e-300).rsqrt(), 0.0)  # (N, r)
    root = (vectors * roots[:, None]) @ vectors.transpose(1, 2)
    inverse = (vectors * roots.square()[:, None]) @ vectors.transpose(1, 2)
    return list(inverse.to(dtype)), list(root.to(dtype))


def _carry_products(carry: Tensor) -> Tensor:
    """The map P -> C^T P C on stored entries, `(k, k)`, to be applied from the right."""
    i, j = torch.triu_indices(*carry.shape, device=carry.device)
    both = carry[i][:, i] * carry[j][:, j]  # C_ia C_jb of entries (i, j) and (a, b)
    swapped = carry[j][:, i] * carry[i][:, j]
    return both + (i != j)[:, None] * swapped


def _direction(
    state: dict[str, Any],
    v: Tensor,
    step: int,
    betas: tuple[float, float],
    eps: float,
    buffers: dict[Any, tuple[Tensor, Tensor]],
) -> Tensor:
    """D `(p, q)`. Buffers of its size are reused between matrices, so that they stay in the cache."""
    first, second = 1 - betas[0] ** step, 1 - betas[1] ** step
    i, j = torch.triu_indices(v.shape[1], v.shape[1], device=v.device)
    pairs = v[:, i] * v[:, j] * torch.where(i == j, 1.0, 2.0) / second  # (q, k)
    shape = (state["moment"].shape[0], v.shape[0])
    if shape not in buffers:
        buffers[shape] = (v.new_empty(shape), v.new_empty(shape))
    moment, root = buffers[shape]
    torch.mm(state["moment"], v.T / first, out=moment)
    torch.mm(state["products"], pairs.T, out=root).clamp_min_(0).sqrt_().add_(eps)
    # No history of gradients gives AdamW a larger ratio (Cauchy and Schwarz); where rounding has cancelled v,
    # it would.
    decay = betas[0] ** 2 / betas[1]
    bound = (1 - betas[0]) / math.sqrt((1 - betas[1]) * (1 - decay)) * math.sqrt(second) / first
    return moment.div_(root).clamp_(-bound, bound)
