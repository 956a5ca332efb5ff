"""What a proposal of the `language` searcher's preset `default` costs as observations grow."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from raylora.progress import Progress
from raylora.spec.model import SearchSpec
from searchers.space import Space, paper_space

# How long a slot waits before it asks again, as Tune's controller does.
_ASK_AGAIN_S = 0.02
_PROPOSALS = 3


def bench_cost(
    counts: Sequence[int], *, space: Space | None = None, seed: int = 0, quiet: bool = False
) -> dict[str, dict[str, float]]:
    """Proposals after synthetic observations, from an actor as in a run, which starts Ray.

    Args:
        counts: numbers of observations.
        space: what is searched; None for `searchers.space.paper_space`.
        seed: of observations and searcher.

    Returns:
        By count: `suggest_s`, the longest of all calls of `suggest`; `fit_s` and `score_s` of the last proposal;
        `proposal_s`, from the question to the answer.
    """
    import ray

    from searchers import make_searcher

    progress, space = Progress(quiet=quiet), paper_space() if space is None else space
    found: dict[str, dict[str, float]] = {}
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    for count in counts:
        rng = np.random.default_rng(seed)
        searcher = make_searcher(
            SearchSpec().searcher, space=space, metric="score", mode="max", seed=seed, samples=50_000
        )
        for index in rng.choice(len(space), count, replace=False):
            searcher.record(space.decode(int(index)), float(rng.standard_normal()))
        started = time.perf_counter()
        for number in range(_PROPOSALS):
            while searcher.suggest(f"t{number}") is None:
                time.sleep(_ASK_AGAIN_S)
            searcher.on_trial_complete(f"t{number}", {"score": float(rng.standard_normal())})
        seconds = ray.get(searcher._actor.info.remote())["timings"]
        searcher.close()
        found[str(count)] = {
            "suggest_s": max(searcher.suggest_seconds),
            "fit_s": seconds["fit"],
            "score_s": seconds["score"],
            "proposal_s": (time.perf_counter() - started) / _PROPOSALS,
        }
        progress.say(f"{count} observations: fit {seconds['fit']:.1f} s, suggest {max(searcher.suggest_seconds):.3f} s")
    return found
