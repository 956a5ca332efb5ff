"""PackedHost: a ModelHost that trains several trials together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.host import ModelHost, Space
from trainables.journal import Ending, Knobs, Metrics
from trainables.protocols import TrialSetup

if TYPE_CHECKING:
    import numpy as np
    from ray.actor import ActorHandle

    from trainables.calibration import Calibration
    from trainables.features import Kind
    from trainables.recipe import RecipeJob, RecipeResult
    from trainables.variants.core.matching import Possible

# Calls that such a host has in hand at once: a report of each trial that runs, and what is asked beside.
CALLS = 96


class PackedHost(ModelHost):
    """As a ModelHost, for up to `setup.pack` owners at once; its calls come from several threads.

    A trial that fails, or another owner's, puts nobody aside: see `Pack`. Killed, it is restarted as a ModelHost is,
    and each owner's next call goes on from its own checkpoint.
    """

    def __init__(self, setup: TrialSetup, index: int = 0, latest: ActorHandle | None = None) -> None:
        from trainables.packed.pack import Pack

        super().__init__(setup, index, latest)
        self.pack = Pack(self.setup, self.model, self.tokenizer, where=f"host-{index}")

    def unshared(self) -> str | None:
        return self.pack.unshared

    def adopt(self, setup: TrialSetup) -> None:
        self.setup = setup = setup.here()
        self.pack.adopt(setup)
        self.pack.call(lambda: super(PackedHost, self).adopt(setup))

    def calibrate(self, ranks: Sequence[int], batch_sizes: Sequence[int], limit_s: float) -> Calibration:
        return self.pack.outside(lambda: super(PackedHost, self).calibrate(ranks, batch_sizes, limit_s))

    def possible(self, spaces: Sequence[Space]) -> list[Possible]:
        return self.pack.call(lambda: super(PackedHost, self).possible(spaces))

    def begin(self, owner: str, knobs: Knobs, trial_id: str = "", halvings: int = 0) -> Ending | None:
        return self.pack.begin(owner, knobs, trial_id, halvings)

    def advance(self, owner: str, knobs: Knobs, trial_id: str = "", halvings: int = 0) -> Metrics | Ending:
        return self.pack.advance(owner, knobs, trial_id, halvings)

    def end(self, owner: str) -> None:
        self.pack.end(owner)

    def save(self, owner: str, folder: str) -> None:
        self.pack.save(owner, folder)

    def load(self, owner: str, knobs: Knobs, folder: str, trial_id: str = "") -> None:
        position = Path(folder) / "position.json"
        if self.begin(owner, knobs, trial_id) is None and position.exists():
            self.pack.load(owner, folder, json.loads(position.read_text())["step"])

    def recipe(self, job: RecipeJob) -> RecipeResult:
        return self.pack.outside(lambda: super(PackedHost, self).recipe(job))

    def features(self, rows: Sequence[Any], kind: Kind) -> np.ndarray:
        return self.pack.outside(lambda: super(PackedHost, self).features(rows, kind))
