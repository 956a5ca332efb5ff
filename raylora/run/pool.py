"""The trials of a search that pauses them: what each has reported, what is forecast of it, and which goes on.

Nothing here knows Tune: `raylora.run.curve` plays it under Tune, `raylora.bench.schedulers` on recorded curves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from searchers.space import Space
    from searchers.surrogate.curves import CurveModel, Hyper

MOST = 4
# Hyperparameters are fitted again once there are so many times the reports.
_MORE = 1.1
# So many begin, as far as there are trials, before any goes on: until then there is nothing to compare.
_FIRST = 8

NEW = "a new trial"
"""What `Pool.choose` answers where no trial that has begun is worth as much."""


@dataclass
class Member:
    """A trial.

    Attributes:
        index: of its configuration in the space; None where it is outside: nothing is forecast of it.
        losses: samples -> validation loss.
        samples: that it has trained on.
        state: `over` for good.
        whole: whether it was trained to its end.
        lost: whether it diverged or failed.
    """

    index: int | None
    losses: dict[int, float] = field(default_factory=dict)
    samples: int = 0
    state: Literal["running", "paused", "over"] = "running"
    whole: bool = False
    lost: bool = False


class Pool:
    """Who has trained how far, and who goes on.

    Args:
        space: what is searched.
        samples: of a whole trial.
        due: samples seen -> samples at the next report.
        budget: samples of the whole search.
        most: configurations that may begin, those that are lost left out; None for MOST times the whole trials that
            there are samples for.
    """

    def __init__(
        self, space: Space, samples: int, due: Callable[[int], int], budget: int = 0, most: int | None = None
    ) -> None:
        self.space, self.samples, self.due, self.budget, self._most = space, samples, due, budget, most
        self.members: dict[str, Member] = {}
        self._model: CurveModel | None = None
        self._fitted: tuple[object, ...] = ()
        # Hyperparameters, and how many reports they were fitted to.
        self._hyper: Hyper | None = None
        self._fitted_to = 0

    # -- what happens ---------------------------------------------------------------------------------------------

    def begin(self, key: str, index: int | None) -> None:
        """A trial runs: for the first time, or again."""
        self.members.setdefault(key, Member(index)).state = "running"

    def report(self, key: str, samples: int, loss: float | None) -> None:
        """A trial has reported."""
        member = self.members[key]
        member.samples = max(member.samples, samples)
        if loss is not None and math.isfinite(loss):
            member.losses[samples] = loss

    def pause(self, key: str) -> None:
        self.members[key].state = "paused"

    def end(self, key: str, *, whole: bool = False, lost: bool = False) -> None:
        """A trial is over."""
        member = self.members[key]
        member.state, member.whole, member.lost = "over", whole, lost

    # -- what is asked --------------------------------------------------------------------------------------------

    @property
    def most(self) -> int:
        """Configurations that may begin."""
        return MOST * (self.budget // self.samples) if self._most is None else self._most

    @property
    def running(self) -> int:
        return sum(member.state == "running" for member in self.members.values())

    @property
    def left(self) -> int:
        """Samples of the budget that are neither spent nor under way."""
        return self.budget - sum(self._taken(member) for member in self.members.values())

    def choose(self, proposal: int | None) -> str | None:
        """Key of the paused trial that goes on, NEW for the proposal, or None where nothing more is worth its samples.

        Args:
            proposal: index of the configuration that would begin; None where there is none.
        """
        from searchers.surrogate.portfolio import Option, choose

        begun = [(key, one) for key, one in self.members.items() if one.index is not None]
        may_begin = proposal is not None and sum(not one.lost for one in self.members.values()) < self.most
        early = len(begun) < min(_FIRST, self.budget // self.samples)
        if early or not any(one.losses for _, one in begun):
            if may_begin and self.samples <= self.left:
                return NEW
            if not any(one.losses for _, one in begun):
                return None
        found = self.forecast([key for key, _ in begun])
        options, keys = [], []
        for (key, one), mean, sd in zip(begun, found.mean, found.sd, strict=True):
            if one.lost or (one.state == "over" and not one.whole):
                continue
            seen = self._taken(one)
            rest = 0 if one.whole else self.samples - seen
            step = self.due(seen) - seen if rest else 0
            options.append(Option(float(mean), float(sd), rest, step, free=one.state == "paused"))
            keys.append(key)
        if may_begin:
            new = self._fit().forecast(self._encode([int(proposal or 0)]))
            first = self.due(0)
            options.append(Option(float(new.mean[0]), float(new.sd[0]), self.samples, first, new=True))
            keys.append(NEW)
        at = choose(options, self.left)
        return None if at is None else keys[at]

    def forecast(self, keys: Sequence[str]) -> Any:
        """`curves.Forecast` of trials within the space; at least one has reported."""
        from searchers.surrogate.curves import Forecast

        model, order = self._fit(), [key for key, one in self.members.items() if one.index is not None]
        found, places = model.forecast(), [order.index(key) for key in keys]
        return Forecast(found.mean[places], found.sd[places], found.scale)

    def _taken(self, member: Member) -> int:
        """Samples that a trial has had, or will have had at its next report."""
        return self.due(member.samples) if member.state == "running" else member.samples

    def _encode(self, indices: Sequence[int]) -> np.ndarray:
        from searchers.surrogate.encoded_gp import MixedEncoding

        return MixedEncoding(self.space)(indices).numpy()

    def _fit(self) -> CurveModel:
        """The model of what is known now."""
        from searchers.surrogate.curves import Curve, CurveModel
        from searchers.surrogate.encoded_gp import MixedEncoding

        members = [one for one in self.members.values() if one.index is not None]
        known = tuple((one.index, tuple(one.losses.items()), one.lost) for one in members)
        if self._model is None or known != self._fitted:
            x = self._encode([one.index for one in members if one.index is not None])
            curves = [
                Curve(row, *_points(one.losses, self.samples), lost=one.lost)
                for row, one in zip(x, members, strict=True)
            ]
            first = min(1.0, self.due(0) / self.samples)
            count = sum(len(one.losses) + one.lost for one in members)
            again = self._hyper is None or count > _MORE * self._fitted_to
            categorical = MixedEncoding(self.space).categorical
            self._model = CurveModel(curves, categorical, first, self._hyper, fit=again)
            self._fitted, self._hyper = known, self._model.hyper
            self._fitted_to = count if again else self._fitted_to
        return self._model


def _points(losses: dict[int, float], samples: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fractions of the budget, ascending, and the losses there."""
    seen = sorted(losses)
    return tuple(min(1.0, one / samples) for one in seen), tuple(losses[one] for one in seen)
