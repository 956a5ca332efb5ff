"""The surrogate as an actor: observations in, proposals out.

The actor keeps nothing that cannot be rebuilt: the language model, and what it has read of the prompts. Observations
and surrogate parameters come with each request and go back with the answer, so a killed actor costs time only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..space import Space
from .candidates import Candidates
from .setup import Setup

if TYPE_CHECKING:
    from torch import Tensor

    from .deep_kernel import Inputs, Posterior, Surrogate
    from .targets import Targets

logger = logging.getLogger(__name__)

# Outcomes of a running trial to prepare for, in standard deviations of what is believed about it.
_OUTCOMES = (-1.2, 0.0, 1.2)
_MOST_BRANCHED = 4
# Observations that a surrogate is fitted to: a fit takes the cube of their number.
_MOST_FITTED = 400
# Candidates that a batch's further proposals, and those prepared for outcomes, are chosen from.
_NARROWED = 4096
# Candidates of a joint draw (Thompson sampling): a Cholesky factor of this size takes a fraction of a second.
_DRAWN = 512


@dataclass
class Proposal:
    """An answer.

    Attributes:
        staged: configurations to try next, best first, if what runs comes out as believed.
        branches: for each running trial's configuration, pairs of an outcome and what to try next if it comes about.
        state: the surrogate's parameters. seconds: by stage.
    """

    staged: list[int]
    branches: dict[int, list[tuple[float, list[int]]]]
    state: dict[str, np.ndarray] | None
    seconds: dict[str, float]


def run_in_background() -> None:
    """The lowest ordinary priority: trials go first.

    Not idle priority, under which a busy machine starves it, while a slot waits for its answer.
    `RAYLORA_SURROGATE_NICE`, from 0 to 19, is for machines that do other work, too, which would starve even this one.
    """
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.nice(int(os.environ.get("RAYLORA_SURROGATE_NICE", "19")))


def fitted(
    observations: Sequence[tuple[int, float, float]], rng: np.random.Generator, most: int = _MOST_FITTED
) -> list[tuple[int, float, float]]:
    """The observations to fit to: all up to `most`, else the better half of that many and others at random."""
    if len(observations) <= most:
        return list(observations)
    order = sorted(range(len(observations)), key=lambda at: -observations[at][1])
    best, rest = order[: most // 2], order[most // 2 :]
    kept = {*best, *rng.choice(rest, most - len(best), replace=False).tolist()}
    return [observations[at] for at in sorted(kept)]


class SurrogateActor:
    """Fits the surrogate and maximises the acquisition over the pool; a Ray actor (`num_cpus=0`), or in process.

    Args:
        llm: folder of the language model; None where `setup.language` is off.
        space: the search space. setup: see `Setup`. seed: of the pool's subset.
        background: whether to run at low priority, on one thread: two thread pools on the same cores wait for each
            other's threads at every matrix product, and both lose more than half of their speed.
    """

    def __init__(self, llm: str | None, space: Space, setup: Setup, seed: int = 0, background: bool = False) -> None:
        if background:
            run_in_background()
        import torch

        from .reading.hidden import HiddenStates

        threads = 1 if background and setup.threads is None else setup.threads
        if threads is not None:
            torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
        self.space, self.setup = space, setup
        self.states = None
        if setup.language:
            assert llm is not None
            self.states = HiddenStates(llm, space, setup)
        limit = setup.subset if self.states is not None and not self.states.shared else None
        self.candidates = Candidates(space, setup, seed, limit)
        self.seconds: dict[str, float] = {}
        self.belief: Posterior | None = None

    def pid(self) -> int:
        """Process id, for tests that kill it."""
        return os.getpid()

    def info(self) -> dict[str, Any]:
        """Device, dtype, whether prompts share work, number of candidates, seconds of the last request by stage."""
        described = {} if self.states is None else self.states.info()
        return {**described, "candidates": len(self.candidates.pool), "timings": dict(self.seconds)}

    def warm(self) -> None:
        """Reads the candidates' prompts ahead of the first request, while the first trials run."""
        if self.states is not None:
            self.states.pool_states(self.candidates.pool, None)

    def propose(
        self,
        observations: Sequence[tuple[int, float, float]],
        pending: Sequence[int],
        k: int,
        seed: int,
        state: dict[str, np.ndarray] | None = None,
        exclude: Sequence[int] = (),
        branch: bool = False,
    ) -> Proposal:
        """The next `k` configurations, best first.

        Args:
            observations: `(index, value, standard error)`, larger is better, finite.
            pending: running configurations; believed to come out at their posterior mean, as is each proposal for
                those that follow it.
            seed: of projection, dropout and draws.
            state: surrogate parameters of the answer before, if any.
            exclude: further configurations not to propose.
            branch: whether to prepare for other outcomes of what runs.

        Returns:
            At most `k` indices (fewer only when the space is used up).
        """
        self.seconds = {}
        clock = _Clock(self.seconds)
        taken = {i for i, _, _ in observations} | set(pending) | set(exclude)
        rng = np.random.default_rng([seed, len(observations), len(taken)])
        if not observations:
            return Proposal(self.candidates.first(k, list(pending), taken, rng), {}, state, self.seconds)
        observations = fitted(observations, rng)
        pool, extra = self._pool(observations, taken, k, rng)
        if len(pool) + len(extra) == 0:
            return Proposal([], {}, state, self.seconds)
        model, targets = self._fit(observations, seed, state, clock)
        inputs = self._inputs(pool, extra, model)
        indices = np.concatenate([self.candidates.pool[pool], extra])
        self.about_to_score(model, inputs, indices)
        running = self._some(list(pending), model)
        clock("read")
        inputs, indices = self._narrowed(model, inputs, indices, running)
        staged = self._pick(model, inputs, indices, running, None, k, rng)
        branches: dict[int, list[tuple[float, list[int]]]] = {}
        if branch and 0 < len(pending) <= _MOST_BRANCHED:
            branches = self._branches(model, targets, inputs, indices, running, list(pending), k, rng)
        clock("score")
        return Proposal(staged, branches, model.export(), self.seconds)

    def about_to_score(self, model: Surrogate, inputs: Inputs, indices: np.ndarray) -> None:
        """Told of the fitted surrogate and its candidates, `(c,)` indices and their inputs; for those who watch."""

    def embeddings(self, indices: Sequence[int], state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Features of configurations, `(n, m)` each, by what has a part in them: see `SpaceSearcher.embeddings`.

        Args:
            indices: at least one.
            state: surrogate parameters of an answer.

        Returns:
            Hidden states of the values alone (`plain`), of the prompt with domain knowledge (`prompt`), both at the
            token's start, and what the kernel has learned to see (`learned`). Nothing without a language model.
        """
        import torch

        from .reading.hidden import HiddenStates

        if self.states is None:
            return {}
        model = self._surrogate(state, seed=0, kernel=True)
        bare = dataclasses.replace(self.setup, prompt_style="plain", token=False, cache=False)
        plain = self.states
        if self.setup.prompt_style != "plain":
            plain = HiddenStates(self.states.reader.folder, self.space, bare)
        chosen = list(indices)
        with torch.no_grad():
            read = self.states.observed(chosen)
            found = {
                "plain": plain.observed(chosen)(None),
                "prompt": read(None),
                "learned": model.features(read(model.token.detach())),
            }
        return {name: np.asarray(one.float().cpu(), dtype=np.float32) for name, one in found.items()}

    # -- stages ----------------------------------------------------------------------------------------------------

    def _pool(
        self, observations: Sequence[tuple[int, float, float]], taken: set[int], k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Free rows of the pool, and further free indices: neighbours of the best where the pool is a subset."""
        pool = self.candidates.pool
        rows = np.flatnonzero(~np.isin(pool, list(taken)))
        if len(pool) == len(self.space):
            return rows, np.zeros(0, dtype=np.int64)
        best = sorted(observations, key=lambda one: -one[1])[:3]
        near = {j for i, _, _ in best for j in self.space.neighbours(i)} - taken - set(pool.tolist())
        if len(rows) + len(near) < k:
            near |= set(self.space.sample(rng, k, exclude=taken | near | set(pool.tolist())))
        return rows, np.array(sorted(near), dtype=np.int64)

    def _fit(
        self,
        observations: Sequence[tuple[int, float, float]],
        seed: int,
        state: dict[str, np.ndarray] | None,
        clock: _Clock,
    ) -> tuple[Surrogate, Targets]:
        from .deep_kernel import Inputs
        from .targets import make_targets

        setup = self.setup
        model = self._surrogate(state, seed, kernel=setup.warm_start)
        if not model.calibrated:
            assert self.states is not None
            model.calibrate(self.states.reference(self.candidates.pool))
        clock("prepare")
        observed = [i for i, _, _ in observations]
        bare = self._bare(observed)
        hidden_at = None if self.states is None else self.states.observed(observed)

        def inputs_at(token: Tensor | None) -> Inputs:
            return bare if hidden_at is None else Inputs(hidden_at(token), bare.x, bare.means)

        table = np.array([(v, e) for _, v, e in observations], dtype=np.float64)
        targets = make_targets(table[:, 0], table[:, 1], setup.warp)
        model.fit(
            inputs_at,
            targets,
            steps=setup.fit_steps,
            seed=seed * 100_003 + len(observations),
            token_every=setup.token_every,
        )
        clock("fit")
        return model, targets

    def _surrogate(self, state: dict[str, np.ndarray] | None, seed: int, kernel: bool) -> Surrogate:
        """The model before it is fitted: as it begins, or with the parameters given (`kernel`: all of them)."""
        from .deep_kernel import Surrogate

        setup = self.setup
        model = Surrogate(
            None if self.states is None else self.states.initial_token(),
            projection=setup.projection,
            dropout=setup.dropout,
            lengthscales=self.candidates.lengthscales if setup.knobs else None,
            log_prior=self.candidates.log_prior,
            priors=setup.priors,
            learn_token=setup.token,
            seed=seed,
        )
        if state is not None:
            model.load(state, kernel=kernel)
        return model

    def _bare(self, indices: Sequence[int]) -> Inputs:
        """Inputs without hidden states."""
        import torch

        from .deep_kernel import Inputs

        x, means = self.candidates.describe(indices)
        return Inputs(torch.zeros(len(x), 0), torch.from_numpy(x), torch.from_numpy(means))

    def _some(self, indices: Sequence[int], model: Surrogate) -> Inputs:
        """Inputs of a few configurations, at the model's token."""
        import torch

        from .deep_kernel import Inputs

        bare = self._bare(indices)
        if self.states is None or not len(indices):
            return bare if self.states is None else Inputs(torch.zeros(0, model.hidden), bare.x, bare.means)
        with torch.no_grad():
            return Inputs(self.states.observed(list(indices))(model.token.detach()), bare.x, bare.means)

    def _inputs(self, rows: np.ndarray, extra: np.ndarray, model: Surrogate) -> Inputs:
        """Inputs of the candidates: rows of the pool, then further indices."""
        import torch

        from .deep_kernel import Inputs

        which = torch.from_numpy(rows)
        h = torch.zeros(len(self.candidates.pool), 0)
        if self.states is not None:
            h = self.states.pool_states(self.candidates.pool, model.token.detach() if self.setup.token else None)
        inputs = Inputs(
            h[which], torch.from_numpy(self.candidates.x[rows]), torch.from_numpy(self.candidates.means[rows])
        )
        return inputs if not len(extra) else inputs.and_also(self._some([int(i) for i in extra], model))

    def _narrowed(
        self, model: Surrogate, inputs: Inputs, indices: np.ndarray, running: Inputs
    ) -> tuple[Inputs, np.ndarray]:
        """The candidates that may be chosen: all where they are few, else the most promising in two ways.

        Half by the expected improvement of a Gaussian with the mixture's moments, half by the upper confidence bound,
        so that there are places to go to should what runs come out low.
        """
        if len(indices) <= _NARROWED:
            return inputs, indices
        import torch

        from .acquisition import log_expected_improvement, score

        belief = model.predict(inputs, running, smooth=self.setup.smooth)
        gains = log_expected_improvement(belief.mean, belief.total_var, belief.incumbent)
        best = [np.argpartition(-one, _NARROWED // 2)[: _NARROWED // 2] for one in (gains, score("ucb", belief))]
        rows = np.unique(np.concatenate(best))
        return inputs.rows(torch.from_numpy(rows)), indices[rows]

    def _pick(
        self,
        model: Surrogate,
        inputs: Inputs,
        indices: np.ndarray,
        running: Inputs,
        values: np.ndarray | None,
        k: int,
        rng: np.random.Generator,
    ) -> list[int]:
        from .acquisition import score

        chosen: list[int] = []
        free = np.ones(len(indices), dtype=bool)
        for _ in range(min(k, len(indices))):
            belief = model.predict(inputs, running, values, smooth=self.setup.smooth)
            self.belief = belief
            if self.setup.acquisition == "thompson":
                values_of = _draw(model, inputs, belief, rng)
            else:
                values_of = score(self.setup.acquisition, belief)
            values_of = np.where(free, values_of, -math.inf)
            # All -inf (no variance, no gain anywhere): the first free one.
            at = int(values_of.argmax()) if np.isfinite(values_of).any() else int(free.argmax())
            free[at] = False
            chosen.append(int(indices[at]))
            running = running.and_also(inputs.rows([at]))
            values = None if values is None else np.append(values, np.nan)
        return chosen

    def _branches(
        self,
        model: Surrogate,
        targets: Targets,
        inputs: Inputs,
        indices: np.ndarray,
        running: Inputs,
        pending: list[int],
        k: int,
        rng: np.random.Generator,
    ) -> dict[int, list[tuple[float, list[int]]]]:
        belief = model.predict(running)
        found: dict[int, list[tuple[float, list[int]]]] = {}
        for j, index in enumerate(pending):
            mean, spread = float(belief.mean[j]), float(np.sqrt(belief.total_var[j]))
            for step in _OUTCOMES:
                values = np.full(len(pending), np.nan)
                values[j] = mean + step * spread
                outcome = float(targets.reported(values[j]))
                found.setdefault(index, []).append(
                    (outcome, self._pick(model, inputs, indices, running, values, min(k, 2), rng))
                )
        return found


def _draw(model: Surrogate, inputs: Inputs, belief: Posterior, rng: np.random.Generator) -> np.ndarray:
    """One joint draw of the objective at the most promising candidates, -inf elsewhere (Thompson sampling)."""
    import torch

    from .acquisition import score

    which = np.argsort(-score("ucb", belief), kind="stable")[:_DRAWN]
    hypothesis = rng.choice(len(belief.weights), p=belief.weights)
    covariance = model.joint_covariance(inputs.rows(torch.from_numpy(which.copy())))
    factor = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(which)))
    drawn = np.full(len(belief.var), -math.inf)
    drawn[which] = belief.means[which, hypothesis] + factor @ rng.standard_normal(len(which))
    return drawn


class _Clock:
    """Seconds between its calls, by name."""

    def __init__(self, into: dict[str, float]) -> None:
        self._into, self._last = into, time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self._into[name], self._last = now - self._last, now
