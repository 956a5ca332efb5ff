"""Earlier results on other tasks or models as prior means.

Each source is smoothed by a Gaussian process of fixed kernel over what configurations of different spaces have in
common (effective learning rate against expectation, rank, batch size, alpha / rank, dropout, variant). What it
predicts for the configurations of the present space, moved a little up and down the learning rate and at several
weights, makes further hypotheses beside those of published knowledge: the surrogate gives each the probability that its
observations deserve. A source that does not fit is given up, as a wrong expectation is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from ..space import Space
from .facts import scale_of
from .knowledge import Knowledge
from .targets import make_targets


class Source(TypedDict, total=False):
    """Results of one task: `configs`, their `values` (larger is better), and the training `samples` of a trial."""

    name: str
    configs: Sequence[Mapping[str, object]]
    values: Sequence[float]
    samples: int | None


# Together, as likely beforehand as all that is published.
P_TRANSFER = 0.5
_SHIFTS = (-0.6, -0.3, 0.0, 0.3, 0.6)
_WEIGHTS = (0.8, 1.6)
# Lengthscales: decades of the rate; doublings of rank, batch size and alpha / rank; dropout.
_LENGTHS = np.array([0.5, 3.0, 3.0, 4.0, 0.3])
_VARIANT_LENGTH = 1.5
_NOISE = 0.05


class TransferredMeans:
    """Prior means from sources, for the configurations of `space`.

    Args:
        samples, scales: see `Knowledge`.

    Raises:
        ValueError: a source has fewer than two results.
    """

    def __init__(
        self,
        space: Space,
        sources: Sequence[Source | Mapping[str, Any]],
        samples: int | None,
        scales: Mapping[str, str] | None = None,
    ) -> None:
        self._space, self._samples, self._scales = space, samples, scales or {}
        self._fits: list[tuple[np.ndarray, list[str], np.ndarray]] = []
        for source in sources:
            found = zip(source["configs"], source["values"], strict=True)
            pairs = [(c, float(v)) for c, v in found if v is not None and math.isfinite(v)]
            configs = [c for c, _ in pairs]
            if len(configs) < 2:
                name = source.get("name", "a source")
                raise ValueError(f"learn_from: {name} has fewer than two results; leave it out")
            targets = make_targets(np.array([v for _, v in pairs]), np.zeros(len(configs)))
            x, variants = _describe(configs, Knowledge(space, source.get("samples"), scales=self._scales))
            gram = _kernel(x, variants, x, variants) + _NOISE * np.eye(len(x))
            self._fits.append((x, variants, np.linalg.solve(gram, targets.y)))

    def means(self, indices: Sequence[int]) -> np.ndarray:
        """`(n, hypotheses)`, on standardised targets."""
        configs = [self._space.decode(i) for i in indices]
        x, variants = _describe(configs, Knowledge(self._space, self._samples, scales=self._scales))
        columns = []
        for there, their_variants, solved in self._fits:
            for shift in _SHIFTS:
                moved = x - np.array([shift, 0, 0, 0, 0])
                predicted = _kernel(moved, variants, there, their_variants) @ solved
                columns += [weight * predicted for weight in _WEIGHTS]
        return np.stack(columns, axis=1) if columns else np.zeros((len(configs), 0))

    def log_prior(self, known: np.ndarray) -> np.ndarray:
        """Log probabilities of all hypotheses: those `known`, then those of `means`."""
        count = len(self._fits) * len(_SHIFTS) * len(_WEIGHTS)
        mine = np.full(count, math.log(P_TRANSFER / count))
        return np.concatenate([known + math.log(1 - P_TRANSFER), mine])


def _describe(configs: Sequence[Mapping[str, Any]], knowledge: Knowledge) -> tuple[np.ndarray, list[str]]:
    rows = [
        (
            knowledge.offset(c),
            math.log2(float(c.get("rank", 16))),
            math.log2(float(c.get("batch_size", 64))),
            math.log2(scale_of(c)),
            float(c.get("dropout", 0.0)),
        )
        for c in configs
    ]
    return np.asarray(rows, dtype=float).reshape(len(rows), 5), [str(c.get("variant", "lora")) for c in configs]


def _kernel(a: np.ndarray, va: Sequence[str], b: np.ndarray, vb: Sequence[str]) -> np.ndarray:
    """Matern-5/2 over scaled coordinates and whether variants are the same."""
    gaps = np.square((a[:, None] - b[None]) / _LENGTHS).sum(-1)
    different = np.asarray(va, dtype=object)[:, None] != np.asarray(vb, dtype=object)[None]
    d = np.sqrt(5.0 * (gaps + different / _VARIANT_LENGTH**2))
    return (1 + d + d * d / 3) * np.exp(-d)
