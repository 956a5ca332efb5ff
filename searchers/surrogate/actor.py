"""The surrogate as an actor: observations in, proposals out.

The actor keeps nothing that cannot be rebuilt: the language model, and the keys and values of configurations already
read. Observations and surrogate parameters come with each request and go back with the answer, so a killed actor costs
time only.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..space import Space


def spread_points(
    space: Space, rng: np.random.Generator, n: int, taken: Sequence[int], exclude: set[int], tries: int = 32
) -> list[int]:
    """`n` space-filling random points: each the farthest of `tries` draws from `taken` and from each other.

    Mitchell's best-candidate sampling, on the space's coordinates. Fewer than `n` only when the space is used up.
    """
    chosen: list[int] = []
    for _ in range(n):
        drawn = space.sample(rng, tries, exclude=exclude | set(chosen))
        if not drawn:
            break
        others = [*taken, *chosen]
        if others:
            gaps = np.abs(space.features(drawn)[:, None] - space.features(others)[None]).sum(axis=2).min(axis=1)
            chosen.append(drawn[int(gaps.argmax())])
        else:
            chosen.append(drawn[0])
    return chosen


def run_in_background() -> None:
    """Idle priority for this thread and those that it starts: they run when nobody else wants the core."""
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    with contextlib.suppress(AttributeError, OSError):
        os.nice(19)


def first_points(
    space: Space, knowledge: Any, rng: np.random.Generator, n: int, taken: Sequence[int], exclude: set[int]
) -> list[int]:
    """Where to begin: what knowledge suggests, or else space-filling random points."""
    if knowledge is None:
        return spread_points(space, rng, n, taken, exclude)
    return knowledge.first_points(rng, n, taken, exclude)


def candidate_stream(space: Space, seed: int, start: int, count: int) -> list[int]:
    """Items `start` to `start + count` of the seed's endless random walk without repetition through the space.

    For a fixed seed successive windows overlap, so keys and values computed for one request serve the next.
    """
    wanted = min(start + count, len(space))
    if len(space) <= 1 << 20:
        order = np.random.default_rng([seed, 0xCA]).permutation(len(space))[:wanted].tolist()
    else:
        rng = np.random.default_rng([seed, 0xCA])
        found: dict[int, None] = {}
        while len(found) < wanted:
            found.setdefault(int(rng.integers(len(space))))
        order = list(found)
    return order[max(0, wanted - count) : wanted]


# How many configurations knowledge looks through, which costs no language model, for each that it picks.
_PRESCREEN = 8


class SurrogateActor:
    """Fits the deep-kernel GP and maximises log EI; use it as a Ray actor (`num_cpus=0`) or in process.

    Candidates of a request: a window of `candidates` configurations over a seeded random order, which moves on by a
    sixteenth with each observation (with knowledge, half of them are the likeliest of a wider window), and the
    neighbours of the three best observed configurations. `candidates` of at
    least the size of the space, or 0, scores the whole space.

    Args:
        llm: folder of the language model.
        space: the search space.
        prompt: template file instead of the built-in text.
        candidates: size of the random window.
        fit_steps: most AdamW steps per request; token_every: the token moves in every so many-th of them.
        warm_start: whether a request goes on from the kernel and projection of the one before (as published) or fits
            them afresh; the token always goes on.
        projection_dim, dropout: of the projection.
        device, num_gpus: see `embed.pick_device`. dtype: torch dtype name, or None for the fastest of the device.
        threads: torch threads on the CPU; None leaves the process as it is.
        cache_mib: memory for configurations' keys and values.
        background: whether to run at idle priority: two thread pools on the same cores wait for each other's threads at
            every matrix product, and both lose more than half of their speed.
        knowledge: whether published knowledge is the prior mean (see `knowledge`), given the `samples` of a trial.
    """

    def __init__(
        self,
        llm: str,
        space: Space,
        *,
        prompt: str | None = None,
        candidates: int = 128,
        fit_steps: int = 60,
        token_every: int = 6,
        warm_start: bool = False,
        projection_dim: int = 32,
        dropout: float = 0.1,
        device: str = "auto",
        num_gpus: float = 0.0,
        dtype: str | None = None,
        threads: int | None = 2,
        cache_mib: int = 1024,
        knowledge: bool = True,
        samples: int | None = None,
        background: bool = False,
    ) -> None:
        if background:
            run_in_background()
        import torch

        from .embed import PromptEmbedder, pick_device
        from .knowledge import Knowledge
        from .prompt import Prompt

        self.knowledge = Knowledge(space, samples) if knowledge else None
        if threads is not None:
            torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
        self.space = space
        self.candidates = len(space) if candidates <= 0 else candidates
        self.fit_steps = fit_steps
        self.token_every = token_every
        self.warm_start = warm_start
        self.projection_dim = projection_dim
        self.dropout = dropout
        template = Prompt(space) if prompt is None else Prompt.from_file(space, prompt)
        self.embedder = PromptEmbedder(
            llm,
            template.prefix,
            lambda index: template.values(space.decode(index)),
            device=pick_device(device, num_gpus),
            dtype=None if dtype is None else getattr(torch, dtype),
            cache_bytes=cache_mib << 20,
        )
        self.embedder.check(0)
        self.timings: dict[str, float] = {}

    def pid(self) -> int:
        """Process id, for tests that kill it."""
        return os.getpid()

    def info(self) -> dict[str, Any]:
        """Device, dtype, whether prompts share work, and the seconds of the last request by stage."""
        embedder = self.embedder
        return {
            "device": str(embedder.device),
            "dtype": str(embedder.dtype).removeprefix("torch."),
            "shared": embedder.shared,
            "timings": dict(self.timings),
        }

    def warm(self, seed: int) -> None:
        """Reads the candidates of the first request ahead of it, while the first trials run."""
        self._embed(self._window(seed, 0, None), self.embedder.initial_token())

    def propose(
        self,
        observations: Sequence[tuple[int, float]],
        pending: Sequence[int],
        k: int,
        seed: int,
        state: dict[str, np.ndarray] | None = None,
        exclude: Sequence[int] = (),
    ) -> tuple[list[int], dict[str, np.ndarray] | None]:
        """The next `k` configurations, best first.

        Args:
            observations: `(index, value)`, larger is better, finite.
            pending: running configurations; believed to come out at their posterior mean, as is each proposal for
                those that follow it.
            seed: of candidates and dropout.
            state: surrogate parameters of the answer before, if any.
            exclude: further configurations not to propose.

        Returns:
            At most `k` indices (fewer only when the space is used up) and the surrogate's parameters.
        """
        import torch

        from .acquisition import log_expected_improvement
        from .deep_kernel import DeepKernelGP

        clock = _Clock(self.timings)
        taken = {i for i, _ in observations} | set(pending) | set(exclude)
        if not observations:
            rng = np.random.default_rng([seed, len(taken)])
            return first_points(self.space, self.knowledge, rng, k, list(pending), taken), state

        model = DeepKernelGP(
            self.embedder.initial_token(), self.projection_dim, self.dropout, seed, self.knowledge is not None
        )
        if state is not None:
            model.load(state, kernel=self.warm_start)
        pool = self._pool(observations, taken, seed, k, state)
        if not pool:
            return [], state
        if not model.calibrated:
            model.calibrate(self._embed([*pool, *(i for i, _ in observations)], model.token.detach()))
        clock("read candidates")
        observed = [i for i, _ in observations]
        batch = self.embedder.gather(observed)
        values = np.array([v for _, v in observations], dtype=float)
        model.fit(
            lambda token: self._known(observed, self.embedder.run_token(batch, token)),
            values,
            steps=self.fit_steps,
            seed=seed * 100_003 + len(observations),
            token_every=self.token_every,
        )
        clock("fit")
        token = model.token.detach()
        h = self._embed(pool, token)
        fantasies = self._embed(list(pending), token)
        chosen: list[int] = []
        free = np.ones(len(pool), dtype=bool)
        for _ in range(min(k, len(pool))):
            mean, var, best = model.predict(h, fantasies)
            score = np.where(free, log_expected_improvement(mean, var, best), -math.inf)
            # All -inf (no variance, no gain anywhere): the first free one.
            at = int(score.argmax()) if np.isfinite(score).any() else int(free.argmax())
            free[at] = False
            chosen.append(pool[at])
            fantasies = torch.cat([fantasies, h[at : at + 1]])
        clock("score")
        return chosen, model.export()

    def _window(self, seed: int, moved: int, state: dict[str, np.ndarray] | None) -> list[int]:
        """The random window; with knowledge, half of it the likeliest of a window `_PRESCREEN` times as wide."""
        window = candidate_stream(self.space, seed, moved, self.candidates)
        if self.knowledge is None or len(window) == len(self.space):
            return window
        wide = candidate_stream(self.space, seed, moved, self.candidates * _PRESCREEN)
        shift = 0.0 if state is None else float(state["trend.shift"])
        likely = [wide[i] for i in np.argsort(-self.knowledge.values(wide, shift), kind="stable")]
        half = self.candidates // 2
        return list(dict.fromkeys([*likely[: self.candidates - half], *window[:half]]))

    def _pool(
        self,
        observations: Sequence[tuple[int, float]],
        taken: set[int],
        seed: int,
        k: int,
        state: dict[str, np.ndarray] | None = None,
    ) -> list[int]:
        """Candidates not yet taken: the window, then the neighbours of the best."""
        moved = (len(observations) * max(1, self.candidates // 16)) if self.candidates < len(self.space) else 0
        window = self._window(seed, moved, state)
        best = sorted(observations, key=lambda pair: -pair[1])[:3]
        near = [j for i, _ in best for j in self.space.neighbours(i)]
        pool = [i for i in dict.fromkeys([*window, *near]) if i not in taken]
        if len(pool) < k:
            rng = np.random.default_rng([seed, len(taken)])
            pool += self.space.sample(rng, k - len(pool), exclude=taken | set(pool))
        return pool

    def _embed(self, indices: Sequence[int], token: Any) -> Any:
        """Hidden states of the configurations, with what is known of them appended."""
        return self._known(indices, self.embedder.embed(list(indices), token))

    def _known(self, indices: Sequence[int], h: Any) -> Any:
        import torch

        if self.knowledge is None:
            return h
        return torch.cat([h, torch.from_numpy(self.knowledge.columns(indices))], dim=1)


class _Clock:
    """Seconds between its calls, by name."""

    def __init__(self, into: dict[str, float]) -> None:
        into.clear()
        self._into, self._last = into, time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self._into[name], self._last = now - self._last, now
