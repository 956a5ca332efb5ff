"""HostedTrial: what Tune sees of a trial. It imports no torch and asks for no CPU; a ModelHost does the work."""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayActorError

from trainables.exhausted import ended_for_memory, oom_kills
from trainables.journal import Ending, Metrics

RETRIES = 20
WAIT_S = 1.0
# A restarted host starts Python and loads its model again, beside whatever else the machine does.
PATIENCE_S = 1200.0


class HostedTrial(tune.Trainable):
    """Thin class Trainable over a host of the pool; made for `reuse_actors=True`.

    `tune.with_parameters(HostedTrial, pool=handle, worst={metric: value})` binds it to a `HostPool`. One `train()` call
    runs up to the next validation report. A trial that the run's journal lists as finished is answered from the
    journal at once, without training.

    A trial that fails for a reason of its own ends with `failed: true` and the worst value: it is not retried. A dead
    host is restarted by Ray; the trial asks again and goes on from its last checkpoint, `deaths` times at most, and
    with half the micro-batch where the kernel ended the host for want of memory. A second time is one too many. Of a
    host that trains `pack` trials together the pack is halved first, until they are one after the other.
    """

    def setup(
        self,
        config: dict[str, Any],
        pool: Any = None,
        worst: Mapping[str, float] | None = None,
        deaths: int = 3,
        pack: int = 1,
    ) -> None:
        self.most_exhausted = pack.bit_length()
        self.pool, self.worst, self.most_deaths = pool, dict(worst or {}), deaths
        self.owner = uuid.uuid4().hex
        self.over = False
        self._join()
        self.deaths = self.exhausted = 0

    def _join(self) -> None:
        trial = self.trial_id if self._trial_info else ""  # without Tune, all are called the same
        self.host = ray.get(self.pool.assign.remote(self.owner, trial))

    @property
    def _knobs(self) -> dict[str, Any]:
        return dict(self.config)

    def _call(self, method: str, *args: object, **kwargs: object) -> object:
        """Call the host; wait for its restart where it died. Nothing is to be had of one whose node has left."""
        for attempt in range(RETRIES):
            try:
                return ray.get(getattr(self.host, method).remote(self.owner, *args, **kwargs))
            except ActorUnschedulableError:
                return None
            except RayActorError:
                if attempt == RETRIES - 1:
                    raise
                with contextlib.suppress(ActorUnschedulableError):
                    await_host(self.host)
        raise AssertionError("unreachable")

    def step(self) -> dict[str, Any]:
        if self.host is None and (gone := self._not_back()):
            return self._ended(gone)
        before = oom_kills()
        try:
            call = self.host.advance.remote(self.owner, self._knobs, self.trial_id, self.exhausted)
            answer: Metrics | Ending = ray.get(call)
        except RayActorError as error:
            self.deaths += 1
            self.exhausted += ended_for_memory(error) or oom_kills() > before
            gone = self._given_up(error) or self._not_back()
            return self._ended(gone) if gone else self.step()
        except ActorUnschedulableError:
            gone = self._not_back()
            return self._ended(gone) if gone else self.step()
        if isinstance(answer, Ending):
            return self._ended(answer.replay(self.worst))
        self.over = bool(answer["done"])
        return {**self._unknown, **answer, "replayed": False}

    def _ended(self, metrics: Metrics) -> dict[str, Any]:
        self.over = True
        return {**self._unknown, **metrics}

    @property
    def _unknown(self) -> dict[str, float]:
        """What Tune insists on where a trial that diverged, or was stopped, did not get to report it."""
        return dict.fromkeys(self.worst, math.nan)

    def _not_back(self) -> dict[str, Any] | None:
        """Waits until the host is back, or, where its node has left, another is there for the trial.

        Returns:
            The trial's ending where none comes.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.host is not None:
                try:
                    await_host(self.host)
                    return None
                except ActorUnschedulableError:
                    self.host = None  # the pool will have heard of it
                except RayActorError as error:
                    gone = self.host
                    self._join()
                    if self.host == gone:
                        return self._failed(f"its host died and does not come back: {last_line(error)}", "failed")
                    continue
            time.sleep(WAIT_S)
            self._join()
        return self._failed("its host's node has left, and no other has room", "failed")

    def _given_up(self, error: RayActorError) -> dict[str, Any] | None:
        """The ending of a trial whose hosts die too often; nobody else has booked it."""
        if self.exhausted > self.most_exhausted:
            why, kind = "the kernel ended its host for want of memory, with half the micro-batch too", "infeasible"
        elif self.deaths > self.most_deaths:
            why, kind = f"its host died {self.deaths} times; the last time: {last_line(error)}", "failed"
        else:
            return None
        return self._failed(why, kind)

    def _failed(self, why: str, kind: str) -> dict[str, object]:
        return {**self.worst, "failed": True, "done": True, "replayed": False, "message": why, "kind": kind}

    def reset_config(self, new_config: Mapping[str, object]) -> bool:
        self._leave()
        self.config = new_config
        self.over = False
        self.deaths = self.exhausted = 0
        self._join()
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, object] | None:
        if self.host is not None:
            self._call("save", checkpoint_dir)
        return None

    def load_checkpoint(self, checkpoint: object) -> None:
        # Without a host for now, it goes on from the one in the run's folder, which is never older.
        if self.host is not None:
            self._call("load", self._knobs, str(checkpoint), self.trial_id)

    def _leave(self) -> None:
        """Put an unfinished trial aside. Whether that is its end is for the driver to say (see `journal`)."""
        if not self.over and self.host is not None:
            self._call("end")

    def cleanup(self) -> None:
        with contextlib.suppress(Exception):
            self._leave()
            ray.get(self.pool.release.remote(self.owner))


def await_host(host: Any, patience_s: float = PATIENCE_S) -> None:
    """Returns once the host is back, its model loaded.

    Raises:
        RayActorError: it does not come back, or not within `patience_s` seconds.
        ActorUnschedulableError: it was for a node that has left.
    """
    deadline, died = time.monotonic() + patience_s, 0
    while True:
        try:
            ray.get(host.ready.remote())
            return
        except RayActorError as error:
            # A call that was under way when the host ended may tell of a death, though it is restarted.
            died += isinstance(error, ActorDiedError)
            if died >= RETRIES or getattr(error, "actor_init_failed", False) or time.monotonic() > deadline:
                raise
            time.sleep(WAIT_S)


def last_line(error: RayActorError) -> str:
    """Why a host is gone, without Ray's paragraphs: what it failed with as it began, or that it was ended."""
    if ended_for_memory(error):
        return "its node was running low on memory"
    if not getattr(error, "actor_init_failed", False):
        return "its process was ended from outside"
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]
