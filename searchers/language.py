"""Language-aided Bayesian optimisation as a Tune searcher that never stalls the controller."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .base import Observation, SpaceSearcher
from .space import Space

logger = logging.getLogger(__name__)

# A surrogate that fails this often in a row will fail again.
_MAX_FAILURES = 3
# With nothing running there is nobody to stall: wait in suggest() rather than have Tune sleep between questions.
_IDLE_WAIT_S = 5.0


class LanguageBOSearch(SpaceSearcher):
    """Bayesian optimisation on a language model's embedding of each configuration.

    Surrogate: Matern-5/2 Gaussian process on a learned projection of the hidden state of a frozen language model at a
    learnable token behind a prompt that explains the knobs and states their values. Acquisition: log expected
    improvement. Per iteration (Algorithm 1): fit kernel, projection and token together to the marginal likelihood,
    score the candidates, propose the best. Running trials, and proposals not yet started, count as if they had come
    out at their posterior mean.

    Fitting and scoring run in a Ray actor. After every result a new batch of proposals is asked for, and `suggest`
    hands out what is staged; a newer batch replaces an older one. The first `n_initial` points come from published
    knowledge. Should the first batch not be ready when a slot becomes free, up to `extra_random` more such points are
    used. Afterwards `suggest` returns None ("ask again") while other trials run, and waits a few seconds when none do.

    The searcher holds the whole state (observations, running trials, generator, surrogate parameters): it pickles, a
    blank `LanguageBOSearch()` restores it, and an actor that dies is made anew and asked again.

    With `synchronous=True`, `suggest` waits for the actor: the same seed and order of results give the same proposals.

    Reference: "Efficient hyper-parameter search for LoRA via language-aided Bayesian optimization". Different here:
    log EI for EI (it does not underflow), one forward position per candidate instead of whole prompts (the same
    numbers), a random window plus neighbours of the best as candidates, kernel and projection fitted afresh in each
    iteration (carried over they settled too early), the token moved less often, and a prior mean. `candidates=0,
    warm_start=True, token_every=1, knowledge=False` is Algorithm 1 as published.

    Args:
        llm: local folder of a causal language model.
        candidates: size of the random window of candidates; 0 scores the whole space at every iteration.
        fit_steps: most optimiser steps per iteration; the token moves in every `token_every`-th (the others need no
            language model).
        warm_start: go on from the kernel and projection of the iteration before instead of fitting them afresh.
        projection_dim: width of the projection; dropout: its dropout while fitting.
        num_gpus: GPU share of the actor; device: `auto` (CUDA when it has a share), `cpu` or `cuda`.
        dtype: of the language model, such as `float32`; None takes bfloat16 where the hardware multiplies it.
        threads: torch threads of the actor on the CPU.
        cache_mib: memory for keys and values of configurations, in MiB.
        patience_s: when results arrived after the staged batch was computed, wait up to this long for the fresh one.
        n_initial: points before the surrogate is used.
        knowledge: begin where published experience with LoRA suggests, and make it the prior mean, with a weight and a
            shift that the surrogate learns (`surrogate.knowledge`); False: random points, constant mean.
        samples: training budget of a trial, which that experience needs.
        extra_random: see above.
        prompt: text file to use instead of the built-in prompt (see `surrogate.prompt.Prompt`).
        stage: proposals per batch; None for one more than trials that run at once.
        synchronous: wait for the actor in `suggest`.
        local: run the surrogate in this process, without Ray (synchronous): for benchmarks over recorded results and
            for tests, where starting a process costs more than the search.
        space, metric, mode, seed, points_to_evaluate, worst: as for `SpaceSearcher`.

    Raises:
        ValueError: an option outside its domain; the message names it.
    """

    summary: ClassVar[str] = "Bayesian optimisation on a language model's embedding of each configuration"
    _transient: ClassVar[tuple[str, ...]] = ("_actor", "_request", "_requested", "_warming", "_in_process")

    def __init__(
        self,
        *,
        space: Space | None = None,
        metric: str | None = None,
        mode: str | None = None,
        seed: int = 0,
        points_to_evaluate: Iterable[Mapping[str, Any]] | None = None,
        worst: float | None = None,
        llm: str | Path | None = None,
        candidates: int = 128,
        fit_steps: int = 60,
        token_every: int = 6,
        warm_start: bool = False,
        projection_dim: int = 32,
        dropout: float = 0.1,
        num_gpus: float = 0.0,
        device: str = "auto",
        dtype: str | None = None,
        threads: int = 2,
        cache_mib: int = 1024,
        patience_s: float = 0.0,
        n_initial: int = 2,
        knowledge: bool = True,
        samples: int | None = None,
        extra_random: int = 2,
        prompt: str | Path | None = None,
        stage: int | None = None,
        synchronous: bool = False,
        local: bool = False,
    ) -> None:
        for name, value, least in (
            ("candidates", candidates, 0),
            ("fit_steps", fit_steps, 1),
            ("token_every", token_every, 1),
            ("projection_dim", projection_dim, 1),
            ("num_gpus", num_gpus, 0),
            ("threads", threads, 1),
            ("cache_mib", cache_mib, 0),
            ("patience_s", patience_s, 0),
            ("n_initial", n_initial, 1),
            ("extra_random", extra_random, 0),
            ("stage", 1 if stage is None else stage, 1),
        ):
            if not value >= least:
                raise ValueError(f"{name}: {value!r} is too small; use at least {least}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: {dropout!r} is outside [0, 1)")
        self.llm = None if llm is None else str(llm)
        self.options: dict[str, Any] = {
            "candidates": candidates,
            "fit_steps": fit_steps,
            "token_every": token_every,
            "warm_start": warm_start,
            "projection_dim": projection_dim,
            "dropout": dropout,
            "num_gpus": num_gpus,
            "device": device,
            "dtype": dtype,
            "threads": threads,
            "cache_mib": cache_mib,
            "prompt": None if prompt is None else str(prompt),
            "knowledge": knowledge,
            "samples": samples,
        }
        self.patience_s = patience_s
        self.n_initial = n_initial
        self.extra_random = extra_random
        self.stage = stage
        self.synchronous = synchronous or local
        self.local = local
        self.suggest_seconds: list[float] = []

        self._surrogate: dict[str, np.ndarray] | None = None
        self._staged: list[int] = []
        self._staged_from = 0  # results known to the staged batch
        self._any_staged = False
        self._results = 0
        self._result_at = 0.0
        self._extra = 0
        self._most_running = 1
        self._failures = 0
        self._actor: Any = None
        self._request: Any = None
        self._requested: tuple[int, frozenset[int]] | None = None
        self._warming: Any = None
        self._in_process: Any = None
        super().__init__(
            space=space, metric=metric, mode=mode, seed=seed, points_to_evaluate=points_to_evaluate, worst=worst
        )

    # -- Tune's calls ----------------------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """See `SpaceSearcher.suggest`; the time it took is appended to `suggest_seconds`."""
        start = time.perf_counter()
        try:
            return super().suggest(trial_id)
        finally:
            self.suggest_seconds.append(time.perf_counter() - start)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        super().on_trial_result(trial_id, result)
        if not self.synchronous:
            self._advance()

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Notes how many trials run at once (for the size of a batch); the limit itself stays Tune's."""
        self._most_running = max(self._most_running, max_concurrent)
        return False

    # -- proposals -------------------------------------------------------------------------------------------------

    def _propose(self, trial_id: str) -> int | None:
        data = self._data()
        if len(self._seen) < self.n_initial or (not data and not self._pending):
            if not self.synchronous:
                self._warm_up()
            return self._random_point()
        if self.synchronous:
            if not data:
                return self._random_point()
            if self.local:
                self._staged, self._surrogate = self._local_surrogate().propose(*self._question())
            else:
                self._send()
                self._receive(timeout=None)
            return self._take()
        self._advance()
        if self._peek() is not None:
            left = self._patience_left()
            if left > 0:
                if self._pending:
                    return None
                self._receive(timeout=left)
            return self._take()
        if not data:
            return self._random_point()
        if not self._any_staged and self._extra < self.extra_random:
            self._extra += 1
            return self._random_point()
        self._send()
        if self._pending:
            return None
        self._receive(timeout=_IDLE_WAIT_S)
        return self._take()

    def _started(self, trial_id: str, index: int, queued: bool) -> None:
        self._most_running = max(self._most_running, len(self._pending))
        self._staged = [i for i in self._staged if i != index]
        if not self.synchronous:
            self._advance()

    def _observed(self, observation: Observation, trial_id: str | None) -> None:
        self._results += 1
        self._result_at = time.monotonic()
        if not self.synchronous and trial_id is not None:
            self._advance()

    def _random_point(self) -> int | None:
        from .surrogate.actor import first_points
        from .surrogate.knowledge import Knowledge

        space = self._space()
        knowledge = Knowledge(space, self.options["samples"]) if self.options["knowledge"] else None
        drawn = first_points(space, knowledge, self.rng, 1, sorted(self._seen), self._seen)
        return drawn[0] if drawn else None

    def _data(self) -> list[tuple[int, float]]:
        """Finite observations, larger is better."""
        sign = -1.0 if self._mode == "min" else 1.0
        return [(o.index, sign * o.value) for o in self._observations.values() if o.value is not None]

    def _peek(self) -> int | None:
        self._staged = [i for i in self._staged if i not in self._seen]
        return self._staged[0] if self._staged else None

    def _take(self) -> int | None:
        index = self._peek()
        if index is not None:
            self._staged.pop(0)
        return index

    def _patience_left(self) -> float:
        """Seconds worth waiting for the successor of an outdated batch; 0 when the staged batch should be used."""
        if self._staged_from >= self._results or self._request is None:
            return 0.0
        return max(0.0, self.patience_s - (time.monotonic() - self._result_at))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # Another process has another clock.
        self._result_at = 0.0

    # -- the actor -------------------------------------------------------------------------------------------------

    def actor_pid(self) -> int | None:
        """Process id of the surrogate actor, None while there is none."""
        import ray

        return None if self._actor is None else ray.get(self._actor.pid.remote())

    def actor_info(self) -> dict[str, Any]:
        """Device, dtype and seconds by stage of the actor's last request (see `SurrogateActor.info`)."""
        import ray

        return ray.get(self._ensure_actor().info.remote())

    def close(self) -> None:
        """Ends the actor; the next request makes a new one."""
        import ray

        if self._actor is not None:
            ray.kill(self._actor)
        self._actor = self._request = self._requested = self._warming = None

    def _ensure_actor(self) -> Any:
        if self._actor is None:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            from .surrogate.actor import SurrogateActor

            options: dict[str, Any] = {"num_cpus": 0, "num_gpus": self.options["num_gpus"]}
            if not self.options["num_gpus"] and ray.is_initialized():
                # The model folder is known to be here; elsewhere it may have to be shared storage.
                node = ray.get_runtime_context().get_node_id()
                options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
            # On a CPU it shares the cores with trials, which go first: its work is needed when one of them ends.
            background = self.options["device"] != "cuda" and not self.options["num_gpus"]
            make = ray.remote(SurrogateActor).options(**options)
            self._actor = make.remote(self._folder(), self._space(), **self.options, background=background)
        return self._actor

    def _local_surrogate(self) -> Any:
        if self._in_process is None:
            from .surrogate.actor import SurrogateActor

            self._in_process = SurrogateActor(self._folder(), self._space(), **{**self.options, "threads": None})
        return self._in_process

    def _folder(self) -> str:
        if self.llm is None:
            raise ValueError("llm: not set; give the local folder of a causal language model")
        return self.llm

    def _warm_up(self) -> None:
        """Lets the actor load the model and read the first candidates while the first trials run."""
        if self._actor is None and self.llm is not None:
            self._warming = self._ensure_actor().warm.remote(self.seed)

    def _advance(self) -> None:
        """Takes in a batch that is ready and asks for the next one if something has changed since the last request."""
        self._receive(timeout=0.0)
        if self._request is None and self._data() and self._requested != self._situation():
            self._send()

    def _situation(self) -> tuple[int, frozenset[int]]:
        return self._results, frozenset(self._seen)

    def _send(self) -> None:
        if self._request is not None:
            return
        self._requested = self._situation()
        self._request = self._ensure_actor().propose.remote(*self._question())

    def _question(self) -> tuple[Any, ...]:
        """Arguments of `SurrogateActor.propose` for the present situation."""
        data, pending = self._data(), list(self._pending.values())
        # One more than can start before the answer to the next result is there.
        size = self.stage or (1 if self.synchronous else max(self._most_running, len(pending)) + 1)
        exclude = (self._seen | set(self._queue)) - {i for i, _ in data} - set(pending)
        return data, pending, size, self.seed, self._surrogate, sorted(exclude)

    def _receive(self, timeout: float | None) -> None:
        """Stages the answer if it arrives within `timeout` seconds (None: however long it takes)."""
        import ray
        from ray.exceptions import RayActorError

        while self._request is not None:
            ready, _ = ray.wait([self._request], timeout=timeout)
            if not ready:
                return
            request, requested = self._request, self._requested
            self._request = None
            try:
                staged, self._surrogate = ray.get(request)
            except RayActorError as error:
                # The process is gone; all it knew is here. One that cannot even start will not the next time either.
                self._actor = self._warming = None
                if error.actor_init_failed:
                    raise RuntimeError(f"the surrogate cannot start: {error}") from error
                self._failed(error)
                self._send()
                if timeout == 0.0:
                    return
                continue
            except Exception as error:
                self._requested = None
                self._failed(error)
                self._send()
                if timeout == 0.0:
                    return
                continue
            assert requested is not None
            self._failures = 0
            self._any_staged = True
            self._staged, self._staged_from = list(staged), requested[0]
            return

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            raise RuntimeError(f"the surrogate failed {self._failures} times in a row: {error}") from error
        logger.warning("surrogate failed (%s); asking again", type(error).__name__)
