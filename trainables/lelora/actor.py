"""The policy as a Ray actor, and the three ways in which a trial gets its strategies.

One actor serves all trials of a search, from any node: requests and answers are NumPy arrays. It keeps one policy per
key: `per_trial` keys name the trial, `shared` ones do not. It is restarted by Ray when it dies, and goes on from the
files that it wrote; a request carries everything that it is about, so nothing else is lost than the rewards since.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.lelora.policy import Outcome, Policy, PolicySettings

_log = logging.getLogger(__name__)

WAIT_S = 60.0  # for an answer: an actor that starts imports torch. One that restarts says so at once
RETRY_S = 0.5  # once it has let a trial wait in vain


@dataclass(frozen=True)
class Request:
    """What a trial asks for at the start of an interval.

    Attributes:
        key: which policy. settings: what it is made from where it does not exist.
        features: xi `(N, F)` now. seed: of the draw.
        outcome: of the interval before; None where there is nothing to learn from it.
        shared: whether other trials may send outcomes for this policy at the same time.
        first: whether the trial begins: a policy of its own begins with it, whatever an earlier attempt has left.
        origin: state that a policy begins from, with the first request of a trial; None for a uniform one.
    """

    key: str
    settings: PolicySettings
    features: np.ndarray
    seed: int
    outcome: Outcome | None = None
    shared: bool = False
    first: bool = False
    origin: Mapping[str, Tensor] | None = None


class Strategist(Protocol):
    """Who answers requests."""

    def exchange(self, request: Request) -> np.ndarray | None:
        """a `(N, 2)`, or None where there is no answer: the trial then keeps its strategies."""

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


class LocalPolicy:
    """A policy in the trial's own process: for a single run without Ray.

    Args:
        origin: state that it begins from.

    Raises:
        ValueError: that state is of other matrices or candidates.
    """

    def __init__(
        self, settings: PolicySettings, features: np.ndarray, origin: Mapping[str, Tensor] | None = None
    ) -> None:
        from trainables.lelora.policy import Policy

        self.policy = Policy(settings, features)
        if origin is not None:
            self.policy.load_state(origin)

    def exchange(self, request: Request) -> np.ndarray | None:
        if request.outcome is not None:
            self.policy.update([request.outcome])
        return self.policy.choose(request.features, request.seed)

    def state(self) -> dict[str, Tensor]:
        return self.policy.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.policy.load_state(state)


class RandomStrategies:
    """No policy: every strategy is as likely as any other."""

    def exchange(self, request: Request) -> np.ndarray | None:
        from trainables.lelora.policy import random_choice

        return random_choice(request.settings, request.seed)

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        pass


class RemotePolicy:
    """The policy of a `LeLoRAPolicyActor`. A lost or slow actor is a warning and no answer, never an error.

    The policy's state is the actor's, not the trial's: a trial that goes on from its checkpoint meets the policy as it
    is by now, and rewards since that checkpoint come a second time.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self._wait = WAIT_S

    def exchange(self, request: Request) -> np.ndarray | None:
        import ray

        try:
            answer = ray.get(self.actor.exchange.remote(request), timeout=self._wait)
        except ray.exceptions.RayError as error:
            _log.warning("LeLoRA keeps its strategies: the policy actor did not answer (%s)", _cause(error))
            if isinstance(error, ray.exceptions.GetTimeoutError):
                self._wait = RETRY_S
            return None
        self._wait = WAIT_S
        return answer

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        pass


def _cause(error: Exception) -> str:
    """In one line; of an error inside the actor, the error there."""
    told = getattr(error, "cause", None) or error
    lines = str(told).strip().splitlines()
    return f"{type(told).__name__}: {lines[0]}" if lines else type(told).__name__


@dataclass
class _Held:
    policy: Policy
    waiting: list[Outcome] = field(default_factory=list)
    saved: float = 0.0


class LeLoRAPolicyActor:
    """Serves strategies and learns from their outcomes; see the module. Make it with `start_policy`.

    Outcomes for one shared policy that arrive within `gather_s` of each other make one update.

    Args:
        folder: for checkpoints, one file per policy; shared storage where the actor may restart on another node.
        checkpoint_every_s: least seconds between two checkpoints of one policy.
        gather_s: how long an outcome for a shared policy waits for others.
        keep: policies in memory; the others wait on disk.
    """

    def __init__(self, folder: str, checkpoint_every_s: float = 5.0, gather_s: float = 0.1, keep: int = 16) -> None:
        import torch

        torch.set_num_threads(1)  # the cores are the trials'
        self.folder, self.keep = Path(folder), keep
        self.checkpoint_every_s, self.gather_s = checkpoint_every_s, gather_s
        self._held: OrderedDict[str, _Held] = OrderedDict()

    async def exchange(self, request: Request) -> np.ndarray:
        """Takes in the outcome, if there is one, and returns a `(N, 2)` for all matrices of the trial."""
        held = self._find(request)
        if request.outcome is not None:
            held.waiting.append(request.outcome)
            if request.shared:
                await asyncio.sleep(self.gather_s)
            # Whoever wakes first takes all that have come in; for the others nothing is left to do.
            outcomes, held.waiting = held.waiting, []
            if outcomes:
                held.policy.update(outcomes)
                self._save(request.key, held)
        return held.policy.choose(request.features, request.seed)

    async def pid(self) -> int:
        """Process id."""
        return os.getpid()

    async def parameters(self, key: str) -> np.ndarray | None:
        """Flat parameters of a policy in memory; None where it is not."""
        held = self._held.get(key)
        return None if held is None else held.policy.state()["parameters"].numpy()

    async def updates(self, key: str) -> int:
        """Steps that a policy in memory has taken; 0 where it is not."""
        held = self._held.get(key)
        return 0 if held is None else held.policy.updates

    def _find(self, request: Request) -> _Held:
        from trainables.lelora.policy import Policy

        if request.first and not request.shared:
            self._held.pop(request.key, None)
            with suppress(OSError):
                self.path(request.key).unlink(missing_ok=True)  # an earlier attempt's
        held = self._held.get(request.key)
        if held is None:
            held = self._held[request.key] = _Held(Policy(request.settings, request.features))
            if request.origin is not None:
                held.policy.load_state(request.origin)
            if request.shared or not request.first:
                self._load(request.key, held.policy)
            if request.origin is not None:  # it does not come again
                self._save(request.key, held, at_once=True)
            held.saved = time.monotonic()
            idle = [key for key, one in self._held.items() if key != request.key and not one.waiting]
            for old in idle[: max(0, len(self._held) - self.keep)]:
                self._save(old, self._held.pop(old), at_once=True)
        self._held.move_to_end(request.key)
        return held

    def path(self, key: str) -> Path:
        """Checkpoint of a policy."""
        return self.folder / f"{key}.safetensors"

    def _load(self, key: str, policy: Policy) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            policy.load_state(load_file(self.path(key)))
        except FileNotFoundError:
            pass
        except (OSError, SafetensorError, ValueError) as error:
            _log.warning("policy %s starts anew: %s", key, error)

    def _save(self, key: str, held: _Held, at_once: bool = False) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if not at_once and time.monotonic() - held.saved < self.checkpoint_every_s:
            return
        held.saved = time.monotonic()
        fresh = self.folder / f".{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(held.policy.state(), fresh)
            os.replace(fresh, self.path(key))
        except (OSError, SafetensorError) as error:
            _log.warning("policy %s is not kept: %s", key, error)
            with suppress(OSError):
                fresh.unlink(missing_ok=True)


def start_shared_policy(checkpoints: Path) -> object:
    """The actor that serves LeLoRA's strategies to all trials of a search, with its policies below `checkpoints`."""
    return start_policy(checkpoints / "policies")


def start_policy(folder: str | Path, **options: object) -> object:
    """A `LeLoRAPolicyActor` that needs no CPU of its own and is restarted whenever it dies.

    It lives as long as the process that starts it. Further arguments are the actor's.
    """
    import ray

    actor = ray.remote(LeLoRAPolicyActor).options(num_cpus=0, max_restarts=-1, max_concurrency=256)
    return actor.remote(str(folder), **options)
