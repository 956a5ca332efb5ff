"""Language-aided Bayesian optimisation as a Tune searcher that never stalls the controller."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .base import Common, Observation, SpaceSearcher
from .errors import OptionError
from .gp import GPSearch
from .space import Space
from .surrogate.actor import Proposal
from .surrogate.candidates import Candidates
from .surrogate.presets import OPTIONS, PRESETS, chosen, make_setup

logger = logging.getLogger(__name__)

# A surrogate that fails this often in a row will fail again.
_MAX_FAILURES = 3
# To wait for what a report shows, after the search.
_LONGEST_LOOK_S = 300.0


class LanguageBOSearch(SpaceSearcher):
    """Bayesian optimisation with published knowledge, or on a language model's embedding of each configuration.

    Surrogate: a Gaussian process. In preset `default`, a Matern-5/2 kernel on the knobs and a prior mean from published
    experience; no language model is read, unless `language=True` adds its kernel. In preset `paper`, a Matern-5/2
    kernel on a learned projection of the hidden state of a frozen language model, at a learnable token behind a prompt
    that explains the knobs and states their values. Per iteration (Algorithm 1): fit everything to the marginal
    likelihood, score all candidates, propose the best. Running trials, and proposals not yet started, count as if they
    had come out at their posterior mean.

    Fitting and scoring run in a Ray actor. `suggest` hands out what is staged, and never waits: while trials run, the
    actor prepares the answer to each of several outcomes of each of them, so that a proposal that takes the newest
    result into account is there when it arrives; a newer batch replaces an older one. Should nothing be ready,
    `suggest` gives up to `extra_random` further first points, and then None ("ask again").

    The searcher holds the whole state (observations, running trials, generator, surrogate parameters): it pickles, a
    blank `LanguageBOSearch()` restores it, and an actor that dies is made anew and asked again.

    With `synchronous=True`, `suggest` waits for the actor: the same seed and order of results give the same proposals.

    Noise: a trial's standard error, where its result has one under the metric's name and `_se`, and the spread of
    repeated configurations are observation noise. Beside such a metric the validation loss counts, as far as it tells
    the metric (`surrogate.link`). A trial stopped early counts with the value it had.

    Reference: "Efficient hyper-parameter search for LoRA via language-aided Bayesian optimization". Preset `paper` is
    the published algorithm; its ablations are the options `projection`, `prompt_style` (`plain` has no domain
    knowledge) and `token`.

    Args:
        llm: local folder of a causal or encoder language model; not needed with `language=False`.
        preset: name in `surrogate.presets.PRESETS`; any option of `surrogate.setup.Setup` may be given, and wins.
        n_initial: points before the surrogate is used: what knowledge suggests, or space-filling random ones.
        extra_random: see above.
        stage: proposals per batch; None for one more than trials that run at once.
        synchronous: wait for the actor in `suggest`.
        local: run the surrogate in this process, without Ray (synchronous): for benchmarks over recorded results and
            for tests, where starting a process costs more than the search.
        space, metric, mode, seed, points_to_evaluate, worst: as for `SpaceSearcher`.

    Raises:
        ValueError: an option outside its domain; the message names it.
    """

    name: ClassVar[str] = "language"
    summary: ClassVar[str] = (
        "Gaussian process on knobs with published knowledge as its prior; preset paper: on a language model's embedding"
    )
    belief: ClassVar[str] = "a Gaussian process on the knobs alone, which stands in for the searcher's richer model"
    option_names: ClassVar[frozenset[str]] = frozenset(OPTIONS)
    _transient: ClassVar[tuple[str, ...]] = (
        "_actor",
        "_request",
        "_requested",
        "_warming",
        "_in_process",
        "_candidates",
    )

    def __init__(
        self,
        *,
        llm: str | Path | None = None,
        preset: str = "default",
        n_initial: int = 1,
        extra_random: int = 2,
        stage: int | None = None,
        synchronous: bool = False,
        local: bool = False,
        **options: Any,
    ) -> None:
        if preset not in PRESETS:
            raise OptionError(
                "preset", f"{preset!r} is unknown; use {' or '.join(PRESETS)}", value=preset, allowed=list(PRESETS)
            )
        for name, value, least in (
            ("n_initial", n_initial, 1),
            ("extra_random", extra_random, 0),
            ("stage", 1 if stage is None else stage, 1),
        ):
            if not value >= least:
                raise OptionError(name, f"{value!r} is too small; use at least {least}", value=value)
        common: Common = {}
        for name in Common.__annotations__.keys() & options.keys():
            common[name] = options.pop(name)  # type: ignore[literal-required]
        self.llm = None if llm is None else str(llm)
        self.setup = make_setup({**PRESETS[preset], **options})
        self.n_initial = n_initial
        self.extra_random = extra_random
        self.stage = stage
        self.synchronous = synchronous or local
        self.local = local
        # For each staged proposal handed out: whether it took the newest result into account.
        self.fresh: list[bool] = []

        self._surrogate: dict[str, np.ndarray] | None = None
        self._staged: list[int] = []
        self._branches: dict[int, list[tuple[float, list[int]]]] = {}
        self._any_staged = False
        self._results = 0
        self._staged_from = 0  # results known to the staged batch
        self._extra = 0
        self._most_running = 1
        self._failures = 0
        self._actor: Any = None
        self._request: object = None
        self._requested: tuple[int, frozenset[int]] | None = None
        self._warming: object = None
        self._in_process: object = None
        self._candidates: Candidates | None = None
        super().__init__(**common)

    # -- what a run asks the class -------------------------------------------------------------------------------------

    @classmethod
    def wants(cls, options: Mapping[str, object]) -> frozenset[str]:
        wanted = {"samples", "parameters", "family", "prior", "prompt", "learn_from", "scales"}
        if chosen(options, "language"):
            wanted.add("llm")
        if chosen(options, "knowledge"):
            wanted.add("ratios")
        return frozenset(wanted)

    @classmethod
    def check(cls, options: Mapping[str, Any], space: Space | None = None) -> None:
        super().check(options)
        if space is None:
            return
        from .surrogate.knowledge import Knowledge
        from .surrogate.reading.prompt import Prompt

        Knowledge(space, beliefs=options.get("prior") or {})
        if options.get("prompt") is not None:
            Prompt.from_file(space, options["prompt"])

    @classmethod
    def leave_one_out(
        cls, space: Space, indices: Sequence[int], values: Sequence[float], options: Mapping[str, Any], seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        # Without the language model, which a report must not have to load, and without the prior mean.
        return GPSearch.leave_one_out(space, indices, values, {}, seed)

    def embeddings(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Hidden states of the language model and what has been learned from them, see `SurrogateActor.embeddings`."""
        if self._surrogate is None or not self.setup.language or not len(indices):
            return {}
        asked = [int(index) for index in indices], self._surrogate
        if self.local:
            return self._local_surrogate().embeddings(*asked)
        import ray

        return ray.get(self._ensure_actor().embeddings.remote(*asked), timeout=_LONGEST_LOOK_S)

    # -- Tune's calls ----------------------------------------------------------------------------------------------

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
        informed = self._informed()
        if len(self._seen) < self.n_initial or (not informed and not self._pending):
            if not self.synchronous:
                self._warm_up()
            return self._first_point()
        if not informed:
            return self._first_point()
        if self.synchronous:
            if self.local:
                self._stage(self._local_surrogate().propose(*self._question()))
            else:
                self._send()
                self._receive(timeout=None)
            return self._take()
        self._receive(timeout=0.0)
        if self._peek() is not None:
            self.fresh.append(self._staged_from >= self._results)
            return self._take()
        if self._may_go_on_without():
            self._extra += 1
            return self._first_point()
        self._send()
        return None

    def _may_go_on_without(self) -> bool:
        """Whether a further first point may stand in for the surrogate's first answer."""
        return not self._any_staged and self._extra < self.extra_random

    def _ready(self) -> None:
        # Before the first trial: looking through a large space takes longer than `suggest` may.
        self._candidates = Candidates(self._space(), self.setup, self.seed)

    def _started(self, trial_id: str, index: int, queued: bool) -> None:
        self._most_running = max(self._most_running, len(self._pending))
        self._staged = [i for i in self._staged if i != index]
        if not self.synchronous:
            self._advance()

    def _observed(self, observation: Observation, trial_id: str | None) -> None:
        self._results += 1
        if not self.synchronous and trial_id is not None:
            self._receive(timeout=0.0)
            self._choose_branch(observation)
            # With something to hand out, a trial is about to start: the question waits for it, so that the answer is
            # prepared for its outcomes.
            if self._peek() is None and not self._may_go_on_without():
                self._advance()

    def _choose_branch(self, observation: Observation) -> None:
        """Stages what was prepared for an outcome like this one, until the next batch is there."""
        prepared = self._branches.pop(observation.index, None)
        if prepared is None or observation.value is None:
            return
        merit = next(merit for index, merit, _ in self.evidence if index == observation.index)
        _, indices = min(prepared, key=lambda branch: abs(branch[0] - merit))
        self._staged = list(dict.fromkeys([*indices, *self._staged]))
        self._staged_from += 1

    def _first_point(self) -> int | None:
        if self._candidates is None:
            self._candidates = Candidates(self._space(), self.setup, self.seed)
        drawn = self._candidates.first(1, sorted(self._seen), set(), self.rng)
        return drawn[0] if drawn else None

    def _informed(self) -> bool:
        """Whether there is anything to tell the surrogate."""
        return any(o.value is not None for o in self._observations.values())

    def _peek(self) -> int | None:
        self._staged = [i for i in self._staged if i not in self._seen]
        return self._staged[0] if self._staged else None

    def _take(self) -> int | None:
        index = self._peek()
        if index is not None:
            self._staged.pop(0)
        return index

    def __setstate__(self, state: Mapping[str, object]) -> None:
        own = vars(self).get("setup")
        super().__setstate__(state)
        if own is not None and self.setup.scales is None:
            # A state from before variants declared their scales.
            self.setup = dataclasses.replace(self.setup, scales=own.scales)
        if self.space is not None:
            self._ready()

    # -- the actor -------------------------------------------------------------------------------------------------

    def actor_pid(self) -> int | None:
        """Process id of the surrogate actor, None while there is none, or a dead one that nobody has missed yet."""
        import ray
        from ray.exceptions import RayActorError

        try:
            return None if self._actor is None else ray.get(self._actor.pid.remote())
        except RayActorError:
            return None

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

            setup = self.setup
            options: dict[str, object] = {"num_cpus": 0, "num_gpus": setup.num_gpus}
            if not setup.num_gpus and ray.is_initialized():
                # The model folder is known to be here; elsewhere it may have to be shared storage.
                node = ray.get_runtime_context().get_node_id()
                options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
            # On a CPU it shares the cores with trials, which go first: its work is needed when one of them ends.
            background = setup.device != "cuda" and not setup.num_gpus
            make = ray.remote(SurrogateActor).options(**options)
            self._actor = make.remote(self._folder(), self._space(), setup, self.seed, background=background)
        return self._actor

    def _local_surrogate(self) -> Any:
        if self._in_process is None:
            from .surrogate.actor import SurrogateActor

            setup = dataclasses.replace(self.setup, threads=None)
            self._in_process = SurrogateActor(self._folder(), self._space(), setup, self.seed)
        return self._in_process

    def _folder(self) -> str | None:
        if self.llm is None and self.setup.language:
            raise OptionError("llm", "not set; give the local folder of a causal language model")
        return self.llm

    def _warm_up(self) -> None:
        """Lets the actor load the model and read the first candidates while the first trials run."""
        if self._actor is None and (self.llm is not None or not self.setup.language):
            self._warming = self._ensure_actor().warm.remote()

    def _advance(self) -> None:
        """Takes in a batch that is ready and asks for the next one if something has changed since the last request."""
        self._receive(timeout=0.0)
        if self._request is None and self._informed() and self._requested != self._situation():
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
        data, pending = self.evidence, list(self._pending.values())
        # One more than can start before the answer to the next result is there.
        size = self.stage or (1 if self.synchronous else max(self._most_running, len(pending)) + 1)
        exclude = (self._seen | set(self._queue)) - {i for i, _, _ in data} - set(pending)
        return data, pending, size, self.seed, self._surrogate, sorted(exclude), not self.synchronous

    def _stage(self, proposal: Proposal) -> None:
        self._staged, self._branches, self._surrogate = proposal.staged, proposal.branches, proposal.state

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
                proposal = ray.get(request)
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
            self._stage(proposal)
            self._staged_from = requested[0]
            # Results that came in while it was made.
            for index in [i for i in self._branches if i in self._observations]:
                if requested[0] < self._results and index not in self._pending.values():
                    self._choose_branch(self._observations[index])
            return

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            raise RuntimeError(f"the surrogate failed {self._failures} times in a row: {error}") from error
        logger.warning("surrogate failed (%s); asking again", type(error).__name__)
