"""What the strategies of an interval were worth: one number for all matrices together, or one for each.

    L_k          loss on the validation rows at the end of interval k, nats per completion token
    R            cost, smaller is better: L1 + reward_alpha L2, with L1 = L_k and L2 = L_k - L_{k-1}
    T_i, g_i     trained numbers of matrix i `(c, m + 1 + n)` (see `slices`) at the end of interval k, and dL / dT_i
    c_i          credit of matrix i: its share of L_k - L_{k-1}; negative where it helped

One number. L2 is negative where the strategies helped; advantage = (R - expected) / scale (`Baseline`).

One for each matrix. By the trapezoidal rule along the straight line from T_{k-1} to T_k,

    c_i = 1/2 <g_{i,k-1} + g_{i,k}, T_{i,k} - T_{i,k-1}>,        sum_i c_i = L_k - L_{k-1} + O(|T_k - T_{k-1}|^3)

so that the change of one loss becomes N numbers, for one backward pass over the validation rows. Taken in W, as
1/2 <dL/dW_i before + after, W_{i,k} - W_{i,k-1}>, it is the same to that order; taken in T nothing of a matrix's size
is formed. Credits are centred over the matrices of a type (`MatrixBaseline`): training lowers the loss whatever is
chosen, in some types more than in others.

Zhou et al., LeLoRA, equations 2 to 4; attribution along a path: Sundararajan, Taly and Yan, arXiv 1703.01365.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trainables.decode import mean_loss, mean_loss_and_gradients
from trainables.lelora.slices import SlicedLinear, all_choosable
from trainables.variants.core.config import Batches

# Of the scalar baseline: share of the newest deviation that level and trend take over, what is left of a trend after an
# interval, and share of the newest square.
LEVEL, TREND, DAMPING, SPREAD = 0.8, 0.8, 0.92, 0.2
# Costs that say only what is usual: R has a change of the loss in it, so that its own first change is of two kinds.
FIRST = 3
# Of the baseline per matrix: intervals over which its mean runs.
MEMORY = 10
# Below this share of the credits themselves, their differences are rounding.
_ROUNDING = 1e-9


def cost_of(after: float, before: float, reward_alpha: float, terms: str) -> float:
    """R from the validation loss after and before an interval; smaller is better.

    Args:
        terms: `both`: L1 + reward_alpha * L2; `l1` or `l2`: that one alone.
    """
    change = after - before
    return {"both": after + reward_alpha * change, "l1": after, "l2": change}[terms]


@dataclass
class Baseline:
    """What a trial's cost is expected to be: level and damped trend (Gardner and McKenzie, Management Science, 1985).

        expected = level + DAMPING * trend

    Training lowers the loss whatever is chosen, steeply at first: a mean of recent costs, as in the paper, would credit
    every choice with that, and so would a trend that has to be found first. This one begins with the latest change of
    the first three costs, and follows at once. The scale is the root of the squared expected change and the mean square
    of what was missed, at the third cost already: where costs fall smoothly, whatever is chosen, advantages are near
    zero, and where choices decide, they are about 1.

    Each trial has its own, because trials at different rates have different losses.

    Attributes:
        level, trend: of the costs so far; NaN: not known yet. square: mean square of what was missed. seen: costs.
    """

    level: float = math.nan
    trend: float = math.nan
    square: float = math.nan
    seen: int = 0

    def advantage(self, cost: float) -> float | None:
        """(R - expected) / scale, and takes the cost in. None where nothing is expected: for the first three costs."""
        self.seen += 1
        if self.seen <= FIRST:
            self.square = (cost - self.level - DAMPING * self.trend) ** 2
            self.level, self.trend = cost, cost - self.level
            return None
        change = DAMPING * self.trend
        missed = cost - self.level - change
        self.level += change + LEVEL * missed
        self.trend = change + LEVEL * TREND * missed
        self.square = (1 - SPREAD) * self.square + SPREAD * missed**2
        scale = math.sqrt(change**2 + self.square)
        return missed / scale if scale > _ROUNDING * abs(cost) else None


@dataclass
class MatrixBaseline:
    """What each matrix's credit is expected to be, beside those of its type.

        relative_i = (c_i - mean over its type) / root mean square of those differences over all matrices
        advantage_i = relative_i - usual_i

    usual_i is the running mean of the matrix's own relative credits, whatever was chosen: some layers always have
    larger gradients than others. A matrix that is alone of its type has nothing to be compared with: its advantage is
    0.

    Attributes:
        groups: type of each matrix as a number, `(N,)`.
        usual: `(N,)`. seen: intervals that it is the mean of.
    """

    groups: np.ndarray
    usual: np.ndarray = field(init=False)
    seen: int = 0

    def __post_init__(self) -> None:
        self.usual = np.zeros(len(self.groups))

    def advantages(self, credits: np.ndarray) -> np.ndarray | None:
        """`(N,)`, and takes the credits `(N,)` in. None where nothing is known yet, or all of a type are alike."""
        means = np.bincount(self.groups, credits) / np.maximum(1, np.bincount(self.groups))
        centred = credits - means[self.groups]
        spread = math.sqrt(np.square(centred).mean())
        if spread <= _ROUNDING * np.abs(credits).max():
            return None
        relative, expected = centred / spread, self.usual.copy()
        self.seen += 1
        self.usual += (relative - self.usual) / min(self.seen, MEMORY)
        return None if self.seen == 1 else relative - expected


class Reward(Protocol):
    """Where advantages come from."""

    def measure(self, module: nn.Module, batches: Batches) -> float | np.ndarray | None:
        """The advantage of the interval that ends now, `()` or `(N,)`; None where it cannot be told."""

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


class ScalarReward:
    """The cost R and its `Baseline`: one forward pass over the validation rows."""

    def __init__(self, terms: str, reward_alpha: float) -> None:
        self.terms, self.reward_alpha = terms, reward_alpha
        self.loss, self.baseline = math.nan, Baseline()

    def measure(self, module: nn.Module, batches: Batches) -> float | None:
        before, self.loss = self.loss, mean_loss(module, batches)
        if not (math.isfinite(self.loss) and math.isfinite(before)):
            return None
        return self.baseline.advantage(cost_of(self.loss, before, self.reward_alpha, self.terms))

    def state(self) -> dict[str, Tensor]:
        usual = self.baseline
        running = [self.loss, usual.level, usual.trend, usual.square, usual.seen]
        return {"running": torch.tensor(running, dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.loss, level, trend, square, seen = state["running"].tolist()
        self.baseline = Baseline(level, trend, square, int(seen))


@dataclass(frozen=True)
class Mark:
    """T and dL / dT of a matrix at the end of an interval, `(c, m + 1 + n)` both."""

    values: Tensor
    gradient: Tensor


def credit(layer: SlicedLinear, before: Mark, gradient: Tensor) -> float:
    """c_i of a matrix whose strategy is still in force: nothing but its slice has moved since `before`.

    Args:
        gradient: dL / dT now, `(c, m + 1 + n)`.
    """
    start, stop = layer.active
    moved = layer.triplets.detach()[start:stop] - before.values[start:stop]
    return 0.5 * float(((before.gradient + gradient)[start:stop] * moved).sum(dtype=torch.float64))


class MatrixReward:
    """Credits and their `MatrixBaseline`: one forward and one backward pass over the validation rows.

    It keeps, beside the trained numbers, as many again twice: values and gradients at the end of the last interval.

    Args:
        layers: by name. kinds: type of each.
    """

    def __init__(self, layers: Mapping[str, SlicedLinear], kinds: Sequence[str]) -> None:
        self.layers = dict(layers)
        names = sorted(set(kinds))
        self.baseline = MatrixBaseline(np.array([names.index(kind) for kind in kinds]))
        self.marks = [Mark(layer.initial.clone(), torch.zeros_like(layer.initial)) for layer in self.layers.values()]
        self.known = False  # whether the marks are of a finite loss

    def credits(self, gradients: Sequence[Tensor]) -> np.ndarray:
        """c `(N,)` of the interval that ends now, from dL / dT of all matrices."""
        layers = self.layers.values()
        return np.array([credit(*one) for one in zip(layers, self.marks, gradients, strict=True)])

    def measure(self, module: nn.Module, batches: Batches) -> np.ndarray | None:
        layers = list(self.layers.values())
        with all_choosable(layers):
            loss, gradients = mean_loss_and_gradients(module, batches, [layer.triplets for layer in layers])
        found = None
        if self.known and math.isfinite(loss):
            credits = self.credits(gradients)
            found = self.baseline.advantages(credits) if np.isfinite(credits).all() else None
        self.known = math.isfinite(loss)
        for layer, mark, gradient in zip(layers, self.marks, gradients, strict=True):
            mark.values.copy_(layer.triplets.detach())
            mark.gradient.copy_(gradient)
        return found

    def state(self) -> dict[str, Tensor]:
        found = {
            "usual": torch.tensor(self.baseline.usual),
            "seen": torch.tensor([self.baseline.seen, int(self.known)]),
        }
        for name, mark in zip(self.layers, self.marks, strict=True):
            found |= {f"{name}.values": mark.values.cpu().clone(), f"{name}.gradient": mark.gradient.cpu().clone()}
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.baseline.usual = state["usual"].numpy().copy()
        self.baseline.seen, self.known = int(state["seen"][0]), bool(state["seen"][1])
        for name, mark in zip(self.layers, self.marks, strict=True):
            mark.values.copy_(state[f"{name}.values"])
            mark.gradient.copy_(state[f"{name}.gradient"])
