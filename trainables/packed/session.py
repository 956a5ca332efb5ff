"""PackedSession: one trial of a pack, from its beginning to its last line in the journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from trainables.evaluation import pad_token
from trainables.exhausted import is_exhausted
from trainables.journal import Ending, Knobs
from trainables.live import Beacon
from trainables.packed.run import PackedRun
from trainables.protocols import TrialSetup
from trainables.run import TrialRun
from trainables.session import TrialSession, surroundings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trainables.packed.trunk import Trunk


class Crowded(Exception):
    """A trial does not fit into memory beside those that run: it may later."""


class PackedSession(TrialSession):
    """As a TrialSession, on a twin of the base.

    Args:
        place: number of the trial's place in the pack.
        crowded: whether others run at this moment, whose end would make room.
    """

    run: PackedRun | None

    def __init__(
        self,
        setup: TrialSetup,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        trunk: Trunk | None,
        where: str,
        place: int,
        crowded: Callable[[], bool],
    ) -> None:
        super().__init__(setup, model, tokenizer, where=where)
        self.trunk, self.place, self.crowded = trunk, place, crowded
        self.beacon = Beacon(setup.run_dir, f"{where}-{place}" if where else "")

    def _made(self, knobs: Knobs, key: str, halvings: int) -> TrialRun:
        return PackedRun(
            self.model,
            knobs,
            self.train,
            self.setup.settings,
            pad_id=pad_token(self.tokenizer),
            surroundings=surroundings(self.setup, knobs, key, Path(self.setup.run_dir)),
            halvings=halvings,
            trunk=self.trunk,
        )

    def abandon(self, knobs: Knobs, error: Exception) -> Ending:
        """As a TrialSession does.

        Raises:
            Crowded: it is memory that there is none of, others are there, and the trial has not begun.
        """
        if self.run is None and self.crowded() and is_exhausted(error):
            raise Crowded(str(error)) from None
        return super().abandon(knobs, error)

    def packed(self) -> PackedRun:
        """The run that is in progress."""
        run: Any = self._require()
        return run

    def scoring(self) -> None:
        """Say that the trial's answers are being scored."""
        self._show("scoring")
