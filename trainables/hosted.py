"""HostedTrial: what Tune sees of a trial. It imports no torch and asks for no CPU; a ModelHost does the work."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError

from trainables.journal import Ending, Metrics

RETRIES = 20
WAIT_S = 1.0


class HostedTrial(tune.Trainable):
    """Thin class Trainable over a host of the pool; made for `reuse_actors=True`.

    `tune.with_parameters(HostedTrial, pool=handle)` binds it to a `HostPool`. One `train()` call runs up
    to the next validation report. A trial that the run's journal lists as finished is answered from the
    journal at once, without training.

    A dead host is restarted by Ray; the trial asks again and goes on from its last checkpoint.
    """

    def setup(self, config: dict[str, Any], pool: Any = None) -> None:
        self.pool = pool
        self.owner = uuid.uuid4().hex
        self.host = ray.get(pool.assign.remote(self.owner))
        self.over = False

    @property
    def _knobs(self) -> dict[str, Any]:
        return dict(self.config)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the host; wait for its restart where it died."""
        for attempt in range(RETRIES):
            try:
                return ray.get(getattr(self.host, method).remote(self.owner, *args, **kwargs))
            except RayActorError:
                if attempt == RETRIES - 1:
                    raise
                time.sleep(WAIT_S)
        raise AssertionError("unreachable")

    def step(self) -> dict[str, Any]:
        answer: Metrics | Ending = self._call("advance", self._knobs, self.trial_id)
        metrics = answer.replay() if isinstance(answer, Ending) else {**answer, "replayed": False}
        self.over = bool(metrics["done"])
        return dict(metrics)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._leave()
        self.config = new_config
        self.over = False
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any] | None:
        self._call("save", checkpoint_dir)
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        self._call("load", self._knobs, str(checkpoint), self.trial_id)

    def _leave(self) -> None:
        """Put an unfinished trial aside. Whether that is its end is for the driver to say (see `journal`)."""
        if not self.over:
            self._call("end")

    def cleanup(self) -> None:
        with contextlib.suppress(Exception):
            self._leave()
            ray.get(self.pool.release.remote(self.owner))
