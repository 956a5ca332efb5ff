"""Member: a trial of a pack, with who waits for it."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from trainables.journal import Ending, Knobs, Metrics
from trainables.packed.run import PackedRun
from trainables.packed.session import PackedSession


@dataclass
class Member:
    """A trial of the pack.

    Attributes:
        asked: who waits for its next report; None while nobody does.
        target: samples after which that is due.
        late: whether it ends with the step that it has taken; see `TrialSession.advance`.
        served: tokens of the passes that it had a part in.
        answered: when its last report was given, on the monotonic clock.
    """

    owner: str
    place: int
    session: PackedSession
    knobs: Knobs
    served: float = 0.0
    asked: Future[Metrics | Ending] | None = None
    target: int = 0
    late: bool = False
    answered: float = field(default_factory=time.monotonic)

    @property
    def run(self) -> PackedRun:
        return self.session.packed()

    @property
    def scored_together(self) -> bool:
        """Whether its answers can be had from a batch with those of others."""
        return self.run.shares and not self.run.diverged

    @property
    def reached(self) -> bool:
        """Whether its next report is due."""
        return self.run.done or self.late or self.run.samples >= self.target

    def size(self) -> tuple[int, int]:
        """Sequences of its next micro-batch and their length."""
        return self.run.size(self.run.group())


@dataclass
class Waiting:
    """A trial that has no place yet."""

    owner: str
    knobs: Knobs
    trial_id: str
    halvings: int
    asked: Future[Metrics | Ending]
