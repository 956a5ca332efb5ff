"""Which directions of all matrices stay: s_ij = |sigma_ij dL/dsigma_ij|, the k smallest go, to a total budget.

Zhang et al., HyperAdaLoRA, equation 9 and appendices D and E. sigma and its gradient are (N, q): N matrices of q
directions each; `kept` is a mask of the same shape.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sensitivity(sigma: Tensor, gradient: Tensor) -> Tensor:
    """|sigma dL/dsigma|, element by element: how much the loss changes, to first order, without that direction."""
    return (sigma * gradient).abs()


def prune(scores: Tensor, kept: Tensor, budget: int) -> Tensor:
    """The `budget` directions of the highest scores among those kept, over all matrices together.

    Ties go to the first direction of every matrix, then to the second, and so on: exactly `budget` stay, and equal
    scores leave matrices equal.

    Args:
        scores: `(N, q)`. kept: `(N, q)` bool. budget: directions to stay, at most as many as are kept.

    Returns:
        `(N, q)` bool, within `kept`.
    """
    ranked = scores.masked_fill(~kept, -torch.inf).T.flatten().argsort(descending=True, stable=True)
    stay = torch.zeros_like(kept).T.flatten()
    stay[ranked[:budget]] = True
    return stay.view_as(kept.T).T & kept


def count_or_share(value: float, steps: int) -> int:
    """Steps meant by an option: a share of the run below 1, a number of steps from 1."""
    return round(value * steps) if value < 1 else round(value)


def budgets(steps: int, first: int, last: int, *, warmup: float, final: float, interval: float) -> dict[int, int]:
    """Directions that stay after each pruning, by optimizer step (counted from 1).

    Prunings come every `interval` steps after `warmup`, up to the beginning of the last `final` steps, where the last
    one is; where the warm-up reaches into those, up to an interval after it. Each takes as many as the others (k is
    constant), to rounding. None comes before the second step, as scores are zero until sigma has moved; a run too short
    for the warm-up is pruned once.

    Args:
        steps: of the run. first, last: directions at the start and at the end, over all matrices.
        warmup, final, interval: see `count_or_share`.
    """
    begin, every = count_or_share(warmup, steps), max(1, count_or_share(interval, steps))
    end = max(min(2, steps), steps - count_or_share(final, steps))
    if begin < steps:
        end = min(steps, max(end, begin + every))
    at = [*range(max(2, min(begin, end - 1) + every), end, every), end]
    return {step: first - round((first - last) * (i + 1) / len(at)) for i, step in enumerate(at)}
