"""Which of the train rows stand for all of them: the ways to choose, from what is known of each row.

All of them choose as many rows as `task.proxy` would, and the same ones for the same seed.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from raylora.data.split import proxy_rows

# Rows of validation that are transported to: each takes a look at all train rows, and more of them change little.
_TARGETS = 256

SELECTORS = {
    "random": "drawn with the seed, as `task.proxy` draws them",
    "tsds": "drawn from the train rows nearest to the validation rows, by optimal transport over embeddings",
    "length": "those with the longest responses",
    "loss": "those whose loss under the base model is nearest to the median",
}


class Features(Protocol):
    """What is known of the rows, asked for where a selector reads it."""

    def lengths(self) -> np.ndarray:
        """Tokens of each train row's response, `(n,)`."""
        ...

    def losses(self) -> np.ndarray:
        """Loss of each train row under the base model, nats per token of its response, `(n,)`."""
        ...

    def embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the train and the validation rows, `(n, d)` and `(m, d)`."""
        ...


def select(name: str, count: int, fraction: float, seed: int, features: Features) -> np.ndarray:
    """Sorted positions of the rows that a selector chooses of `count`.

    Args:
        name: one of `SELECTORS`.
        fraction: of the rows, in (0, 1]; at least one row is chosen.
    """
    drawn = proxy_rows(count, fraction, seed)
    wanted = len(drawn)
    if name == "random" or wanted == count:
        return drawn
    if name == "length":
        return longest(features.lengths(), wanted)
    if name == "loss":
        return nearest_median(features.losses(), wanted)
    return transported(*features.embeddings(), wanted, seed)


def longest(lengths: np.ndarray, wanted: int) -> np.ndarray:
    """Sorted positions of the `wanted` longest, the earlier ones of equals.

    Source: Zhao et al., "Long Is More for Alignment", 2024 (arXiv 2402.04833).
    """
    return np.sort(np.argsort(-lengths, kind="stable")[:wanted])


def nearest_median(losses: np.ndarray, wanted: int) -> np.ndarray:
    """Sorted positions of the `wanted` whose rank is in the middle of all.

    Source: Marion et al., "When Less is More", 2023 (arXiv 2309.04564), where the middle of the perplexities is what
    is best kept.
    """
    first = (len(losses) - wanted) // 2
    return np.sort(np.argsort(losses, kind="stable")[first : first + wanted])


def transported(rows: np.ndarray, targets: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """Sorted positions of `wanted` rows, drawn by how much of the targets is transported to each.

    Each target has the same mass. The plan minimises the mean distance of transport plus the largest excess of a share
    over an even spread, both at the same weight, the distance in units of its mean over all pairs. In closed form,
    each target goes in equal shares to its K nearest rows, with one K for all. K is raised where these are not enough
    rows to draw from. Distances are Euclidean between embeddings of length 1, after the rows' mean is taken off.

    Source: Liu et al., "TSDS: Data Selection for Task-Specific Model Finetuning", NeurIPS 2024 (arXiv 2410.11303), the
    form for G-infinity; without its correction for rows that nearly repeat.

    Args:
        rows, targets: embeddings `(n, d)` and `(m, d)`; of many targets a sample counts.
        wanted: at most `n`.
    """
    draw = np.random.default_rng([seed, len(rows)])
    if len(targets) > _TARGETS:
        targets = targets[np.sort(draw.permutation(len(targets))[:_TARGETS])]
    centre = rows.mean(axis=0, dtype=np.float64)
    rows, targets = _directions(rows, centre), _directions(targets, centre)
    means, closest = np.zeros(len(rows)), np.full(len(rows), len(rows))
    for target in targets:  # one at a time: all distances at once would be m x n
        order, distances = _nearest(rows, target)
        means += distances[order] / len(targets)
        closest[order] = np.minimum(closest[order], np.arange(len(rows)))
    neighbours = max(neighbour_count(means), int(np.sort(closest)[wanted - 1]) + 1)
    mass = np.zeros(len(rows))
    for target in targets:
        mass[_nearest(rows, target)[0][:neighbours]] += 1
    # Draws without replacement by mass: the largest of its logarithm plus Gumbel noise.
    with np.errstate(divide="ignore"):
        scores = np.log(mass) + draw.gumbel(size=len(rows))
    return np.sort(np.argsort(-scores, kind="stable")[:wanted])


def neighbour_count(means: np.ndarray) -> int:
    """The K of `transported`.

    With K neighbours the objective is (S(K) / c + 1) / K, S the sum of the first K distances and c the mean of all. It
    falls as long as K d(K + 1) - S(K) < c.

    Args:
        means: distance d(k) of the k-th nearest row, in the mean over the targets, ascending, `(n,)`.
    """
    before = np.cumsum(means) - means
    excess = np.arange(len(means)) * means - before
    return max(1, int(np.searchsorted(excess, means.mean())))


def _nearest(rows: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows in the order of their distance, and the distances in the order of the rows."""
    distances = np.linalg.norm(rows - target, axis=1)
    return np.argsort(distances, kind="stable"), distances


def _directions(embeddings: np.ndarray, centre: np.ndarray) -> np.ndarray:
    moved = embeddings - centre
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
