"""How many trials share a host's passes, where the spec leaves that to the plan."""

from __future__ import annotations

import math

import numpy as np

from raylora.run.plan.cost import CostModel
from raylora.spec import Spec

AT_MOST = 16
# Of the speed of the largest pack, what a smaller one should have to be taken; of one trial's, what is worth packing.
NEARLY, WORTH = 0.95, 1.05
# Part of the trials that a searcher which learns from results may be without at a time.
UNSEEN = 0.25
# Of the memory that can be had, what is planned with.
MEMORY = 0.9


def fitting_pack(spec: Spec, cost: CostModel) -> int:
    """Trials that should share passes on each host: the fewest that are nearly as quick as all that fit.

    What bounds them: memory at the largest rank, the trials that there are, and that a searcher is to learn from most
    of them.

    Args:
        cost: of a trial alone.
    """
    most = _that_fit(spec, cost, _useful(spec))
    best = gain(spec, cost, most)
    if best < WORTH:
        return 1
    return next(pack for pack in range(1, most + 1) if gain(spec, cost, pack) >= NEARLY * best)


def why_alone(spec: Spec, cost: CostModel) -> str:
    """In words, what keeps `fitting_pack` at one trial."""
    useful = _useful(spec)
    most = _that_fit(spec, cost, useful)
    if useful == 1:
        why = "there are too few trials for a searcher that learns from them"
    elif most == 1:
        why = "memory has no room for two"
    else:
        why = f"with {most} of them passes are predicted to be {gain(spec, cost, most):.2g} times as fast"
    return f"one trial at a time on a host, as {why}"


def _useful(spec: Spec) -> int:
    """The largest pack that leaves a searcher enough results to learn from."""
    from searchers import SEARCHERS

    unseen = UNSEEN if SEARCHERS[spec.search.searcher].learns else 1.0
    return max(1, min(AT_MOST, math.ceil(unseen * spec.search.trials / spec.resources.at_a_time)))


def _that_fit(spec: Spec, cost: CostModel, most: int) -> int:
    """As many of `most` trials as memory has room for, and one at least."""
    hosts, free = spec.resources.at_a_time, MEMORY * (cost.available_gb + cost.resident_gb)
    while most > 1 and cost.available_gb and hosts * memory_gb(spec, with_pack(spec, cost, most)) > free:
        most -= 1
    return most


def with_pack(spec: Spec, cost: CostModel, pack: int) -> CostModel:
    """The costs of trials of such a pack."""
    return cost.packed(pack, spec.train.micro_batch_tokens)


def pack_of(spec: Spec, cost: CostModel) -> int:
    """The spec's pack, or the one that fits."""
    pack = spec.resources.pack
    return fitting_pack(spec, cost) if pack == "auto" else pack


def gain(spec: Spec, cost: CostModel, pack: int) -> float:
    """How many times as many samples an hour are trained on, over the space, as one trial after the other."""
    together = with_pack(spec, cost, pack)
    kinds = [(v, r, b) for v in spec.space.variant for r in spec.space.rank for b in spec.space.batch_size]
    seconds = [[model.step_seconds(*kind) / kind[2] for kind in kinds] for model in (cost, together)]
    alone, packed = np.sum(seconds, axis=1)
    return float(alone / packed)


def memory_gb(spec: Spec, cost: CostModel) -> float:
    """Peak of a host over the space."""
    tokens = spec.train.micro_batch_tokens
    return max(cost.memory_gb(variant, rank, tokens) for variant in spec.space.variant for rank in spec.space.rank)
