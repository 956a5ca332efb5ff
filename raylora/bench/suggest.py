"""One iteration of the language searcher's surrogate at full size, against the same iteration with whole prompts.

An iteration fits kernel, projection and learnable token jointly to what was observed, scores every configuration of the
pool at the token's new place, and picks. The token moves, so the hidden states of the whole pool change each time. The
searcher's way (`searchers.surrogate`) runs one more position behind keys and values that it has read before; the naive
way runs each prompt from its first token, and back through it wherever the token moves.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.errors import UserError
from raylora.progress import Progress
from searchers.space import Space, paper_space
from searchers.surrogate.actor import Proposal, SurrogateActor
from searchers.surrogate.setup import Setup

if TYPE_CHECKING:
    from torch import Tensor

    from searchers.surrogate.deep_kernel import Inputs, Surrogate
    from searchers.surrogate.reading.embed import PromptReader
    from searchers.surrogate.reading.hidden import HiddenStates

DTYPES = ("float32", "bfloat16", "float16")
# Whole prompts per forward call: a processor is fastest with few, a GPU with many.
_BATCH_SIZES = {"cpu": (1, 8, 32), "cuda": (16, 64, 256)}
# Prompts per backward pass, which keeps all activations of all of their tokens: too much for the observed at once.
_BACKWARD_BATCH, _BACKWARD_PROMPTS = 4, 12
_NOISE = 0.01


def bench_suggest(
    model: str = "smollm2-135m",
    *,
    observed: int = 30,
    dtype: str | None = None,
    sample: int = 96,
    check: int = 200,
    kv_budget_gb: float = 3.0,
    fit_steps: int = 60,
    preset: str = "default",
    space: Space | None = None,
    seed: int = 0,
    quiet: bool = False,
    **options: object,
) -> dict[str, float]:
    """Time, memory and exactness of proposing one configuration, with synthetic observations.

    Args:
        model: name of a language model, see `raylora.models.resolve`.
        observed: observations of the first iteration; the later one has one more.
        dtype: of the language model, one of `DTYPES`; None for the machine's own choice.
        sample: configurations of the pool that run as whole prompts, in each of three batch sizes.
        check: configurations that both ways embed in float32.
        kv_budget_gb: most memory for keys and values, GiB.
        fit_steps: most AdamW steps of a fit, which ends earlier once it has settled.
        preset: of the language searcher; the language part and the learnable token are always on.
        space: what is searched; None for `searchers.space.paper_space`.
        seed: of observations, sample, projection and dropout.
        options: of `searchers.surrogate.setup.Setup`.

    Returns:
        `first_s`: seconds of the first iteration in a fresh process (imports, loading the model, reading the pool's
        prompts, fit, scores). `next_s`: of a later one. `naive_s`: of the language model's part of the later one with
        whole prompts (best batch size, as many fit steps), by the token from a sample. `ratio`: naive_s / next_s.
        `max_abs_diff`, `max_abs_diff_fp32`: largest difference between the two ways' hidden states, over `sample` and
        `check` configurations. `max_abs_diff_acquisition`: of the acquisition values made of the former by the same
        fitted surrogate. `peak_gb`: peak resident memory (GiB) of a process that runs the searcher's way only.
        `fit_steps`: steps that the later fit took. `prompts`: size of the pool. `prompt_tokens`: mean length of its
        prompts, token included.

    Raises:
        UserError: a number or a name outside its domain, an unknown model, or one whose prompts cannot share prefixes.
    """
    from raylora.models import resolve

    space = paper_space() if space is None else space
    setup = _make_setup(preset, options, dtype=dtype, kv_budget_gb=kv_budget_gb, fit_steps=fit_steps)
    for name, value, least in (("observed", observed, 2), ("sample", sample, 1), ("check", check, 1)):
        if value < least:
            raise UserError.at(name, f"{value}; allowed: at least {least}", value=value)
    if observed + 2 > len(space):
        raise UserError.at(
            "observed", f"{observed}; allowed: at most {len(space) - 2}, two fewer than configurations", value=observed
        )
    folder = str(resolve(model, quiet=quiet))
    progress = Progress(quiet=quiet)
    fast = _alone(_run_fast, folder, space, setup, observed, sample, seed, quiet)
    progress.say(f"peak memory {fast.peak_bytes / (1 << 30):.2f} GiB; now whole prompts")
    whole = _alone(_run_whole, folder, space, setup, fast, check, seed, quiet)
    progress.say(f"whole prompts: {whole.seconds:.0f} s an iteration, {whole.seconds / fast.next_s:.0f} times as long")
    return {
        "first_s": fast.first_s,
        "next_s": fast.next_s,
        "naive_s": whole.seconds,
        "ratio": whole.seconds / fast.next_s,
        "max_abs_diff": whole.difference,
        "max_abs_diff_fp32": whole.difference_fp32,
        "max_abs_diff_acquisition": whole.difference_acquisition,
        "peak_gb": fast.peak_bytes / (1 << 30),
        "fit_steps": float(fast.steps),
        "prompts": float(len(fast.pool)),
        "prompt_tokens": whole.prompt_tokens,
    }


def _make_setup(preset: str, options: dict[str, Any], **given: Any) -> Setup:
    from searchers.surrogate.presets import PRESETS, make_setup

    if preset not in PRESETS:
        raise UserError.at(
            "preset", f"{preset!r} is unknown; allowed: {', '.join(PRESETS)}", value=preset, allowed=list(PRESETS)
        )
    if given["dtype"] not in (None, *DTYPES):
        raise UserError.at(
            "dtype",
            f"{given['dtype']!r} is unknown; allowed: {', '.join(DTYPES)}",
            value=given["dtype"],
            allowed=list(DTYPES),
        )
    # What an earlier run left on disk would make the first iteration look fast.
    fixed = {"language": True, "token": True, "cache": False}
    try:
        return make_setup({**PRESETS[preset], **options, **given, **fixed})
    except ValueError as error:
        raise UserError.around("", error) from None


def _alone(work: Callable[..., object], *args: object) -> Any:
    """`work(*args)` in a process of its own, so that its memory and its caches are its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


# -- the searcher's way ------------------------------------------------------------------------------------------------


@dataclass
class _Fast:
    """What the searcher's way took and found.

    Attributes:
        observed: indices of the later iteration. sample: `(s,)` indices.
        fitted: the later iteration's `(surrogate, inputs of the sample)`, pickled: tensors that cross processes
            otherwise live in the sender's shared memory, which ends with it.
    """

    first_s: float
    next_s: float
    peak_bytes: int
    steps: int
    pool: np.ndarray
    observed: list[int]
    sample: np.ndarray
    fitted: bytes


class _Watched(SurrogateActor):
    """The searcher's surrogate, which also keeps what it scored a sample of configurations with.

    Attributes:
        sample: indices to keep. kept: their `Inputs` and the fitted surrogate. steps: of the last fit.
    """

    sample: np.ndarray = np.zeros(0, dtype=np.int64)
    kept: tuple[Surrogate, Inputs] | None = None
    steps = 0

    def propose(self, *args: Any, **kwargs: Any) -> Proposal:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.steps = 0
        handle = register_optimizer_step_post_hook(self._count)
        try:
            return super().propose(*args, **kwargs)
        finally:
            handle.remove()

    def _count(self, *args: Any) -> None:
        self.steps += 1

    def about_to_score(self, model: Surrogate, inputs: Inputs, indices: np.ndarray) -> None:
        at = {int(index): row for row, index in enumerate(indices)}
        self.kept = (model, inputs.rows([at[int(index)] for index in self.sample]))


def _run_fast(folder: str, space: Space, setup: Setup, observed: int, sample: int, seed: int, quiet: bool) -> _Fast:
    progress = Progress(quiet=quiet)
    rng = np.random.default_rng(seed)
    value = _objective(space, rng)
    data = [(i, value(i), _NOISE) for i in space.sample(rng, observed)]
    progress.say(f"first iteration: {observed} observations")
    started = time.perf_counter()
    actor = _Watched(folder, space, setup, seed)
    if actor.states is None or not actor.states.shared:
        raise UserError.at(
            "model", f"{folder!r} does not let prompts share prefixes; choose a causal language model", value=folder
        )
    proposal = actor.propose(data, [], 1, seed)
    first_s = time.perf_counter() - started
    pool = actor.candidates.pool
    progress.say(f"first iteration: {first_s:.1f} s, {len(pool)} prompts, {_stages(proposal.seconds)}")
    data.append((proposal.staged[0], value(proposal.staged[0]), _NOISE))
    seen = [i for i, _, _ in data]
    free = np.setdiff1d(pool, seen)
    actor.sample = rng.choice(free, size=min(sample, len(free)), replace=False)
    started = time.perf_counter()
    proposal = actor.propose(data, [], 1, seed, proposal.state)
    next_s = time.perf_counter() - started
    progress.say(f"later iteration: {next_s:.1f} s, {actor.steps} fit steps, {_stages(proposal.seconds)}")
    peak = _peak_bytes()
    return _Fast(first_s, next_s, peak, actor.steps, pool, seen, actor.sample, pickle.dumps(actor.kept))


def _objective(space: Space, rng: np.random.Generator) -> Callable[[int], float]:
    """A smooth function of a configuration's coordinates, 0.7 at most, with noise of standard deviation `_NOISE`."""
    width = space.features([0]).shape[1]
    centre, weight = rng.uniform(0.2, 0.8, width), rng.dirichlet(np.ones(width))

    def value(index: int) -> float:
        gap = space.features([index])[0] - centre
        return float(0.7 - weight @ np.square(gap) + rng.normal(scale=_NOISE))

    return value


def _stages(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())


def _peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.is_file():
        # On Linux `ru_maxrss` starts from the peak of the process that this one was forked from.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


# -- whole prompts -----------------------------------------------------------------------------------------------------


@dataclass
class _Naive:
    """What whole prompts take (seconds of a later iteration), and how far the two ways differ."""

    seconds: float
    difference: float
    difference_fp32: float
    difference_acquisition: float
    prompt_tokens: float


def _run_whole(folder: str, space: Space, setup: Setup, fast: _Fast, check: int, seed: int, quiet: bool) -> _Naive:
    import torch

    from searchers.surrogate.acquisition import score
    from searchers.surrogate.deep_kernel import Inputs
    from searchers.surrogate.reading.hidden import HiddenStates

    progress = Progress(quiet=quiet)
    if setup.threads is not None:
        # As many as the searcher's way had.
        torch.set_num_threads(max(1, min(setup.threads, os.cpu_count() or 1)))
    kept: tuple[Surrogate, Inputs] = pickle.loads(fast.fitted)
    surrogate, inputs = kept
    token = surrogate.token.detach()
    states = HiddenStates(folder, space, dataclasses.replace(setup, token_dtype=None))
    reader = states.reader
    constant = len(reader.prefix_ids) + 1  # with the token
    pool_tokens = sum(map(len, _prompts(states, fast.pool))) + constant * len(fast.pool)
    seen = _prompts(states, fast.observed)
    seen_tokens = sum(map(len, seen)) + constant * len(seen)
    hidden, forward_s = _forward(reader, _prompts(states, fast.sample), token, progress)
    both_s = _backward(reader, seen[:_BACKWARD_PROMPTS], token)
    progress.say(f"forward {1 / forward_s:.0f} tokens/s, forward and backward {1 / both_s:.0f} tokens/s")
    moves = -(-fast.steps // setup.token_every)
    # Fitting embeds the observations once before its steps and once behind them.
    seconds = pool_tokens * forward_s + seen_tokens * (moves * both_s + 2 * forward_s)

    # Thompson sampling draws; it ranks by the confidence bound first.
    name = "ucb" if setup.acquisition == "thompson" else setup.acquisition
    ours, theirs = (
        score(name, surrogate.predict(Inputs(h, inputs.x, inputs.means), smooth=setup.smooth))
        for h in (inputs.h, hidden)
    )
    apart = ours != theirs  # both may be minus infinity
    difference_acquisition = float(np.abs(ours[apart] - theirs[apart]).max(initial=0.0))
    del states, reader

    states = HiddenStates(folder, space, dataclasses.replace(setup, dtype="float32", token_dtype=None))
    some = np.random.default_rng([seed, 1]).choice(fast.pool, size=min(check, len(fast.pool)), replace=False)
    progress.say(f"float32: {len(some)} prompts both ways")
    return _Naive(
        seconds=seconds,
        difference=float((inputs.h - hidden).abs().max()),
        difference_fp32=_difference(states.reader, _prompts(states, some), token),
        difference_acquisition=difference_acquisition,
        prompt_tokens=pool_tokens / len(fast.pool),
    )


def _prompts(states: HiddenStates, indices: Sequence[int] | np.ndarray) -> list[list[int]]:
    """Token ids behind the constant part."""
    return states.reader.ids([states.prompt.values(states.space.decode(int(i))) for i in indices])


def _forward(reader: PromptReader, prompts: list[list[int]], token: Tensor, progress: Progress) -> tuple[Tensor, float]:
    """Hidden states of whole prompts `(s, hidden)`, and the seconds per token at the best batch size."""
    import torch

    from searchers.surrogate.reading.whole import Whole

    longest = len(reader.prefix_ids) + max(map(len, prompts)) + 1
    best = float("inf")
    with torch.no_grad():
        Whole(reader, prompts[:1]).run(token)  # the first call sets kernels up
        for size in _BATCH_SIZES["cpu" if reader.device.type == "cpu" else "cuda"]:
            whole = Whole(reader, prompts, size * longest)
            started = time.perf_counter()
            hidden = whole.run(token)
            rate = (time.perf_counter() - started) / (sum(map(len, whole.prompts)) + len(prompts))
            progress.say(f"whole prompts, {size} at a time: {1 / rate:.0f} tokens/s")
            best = min(best, rate)
    return hidden, best


def _backward(reader: PromptReader, prompts: list[list[int]], token: Tensor) -> float:
    """Seconds per token forward and back through whole prompts to the learnable token."""
    from searchers.surrogate.reading.whole import Whole

    best = float("inf")
    # The best of several passes: the first sets kernels up.
    for at in range(0, len(prompts), _BACKWARD_BATCH):
        whole = Whole(reader, prompts[at : at + _BACKWARD_BATCH], 1 << 20)
        psi = token.clone().requires_grad_()
        started = time.perf_counter()
        whole.run(psi).sum().backward()
        best = min(best, (time.perf_counter() - started) / (sum(map(len, whole.prompts)) + len(whole)))
    return best


def _difference(reader: PromptReader, prompts: list[list[int]], token: Tensor) -> float:
    """Largest difference of the two ways' hidden states."""
    import torch

    from searchers.surrogate.reading.whole import Whole

    with torch.no_grad():
        return float((reader.read(prompts).run(token) - Whole(reader, prompts).run(token)).abs().max())
