"""The configuration that a learned prior expects to be best, before any trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import facts
from .learned import Context, Learned

# Standard normal places and weights that expectations over the best rate are taken at.
_Z = np.linspace(-3.0, 3.0, 61)
_W = np.exp(-0.5 * _Z**2) / np.exp(-0.5 * _Z**2).sum()
# A tenth of the probability lies above.
_TENTH = 1.2816


@dataclass(frozen=True)
class Advice:
    """What is advised.

    Attributes:
        config: the configuration.
        expected, low, high: where its best learning rate is expected, and between what it lies with probability 0.8.
    """

    config: Mapping[str, Any]
    expected: float
    low: float
    high: float


def advise(
    configs: Sequence[Mapping[str, Any]],
    learned: Learned,
    context: Context,
    scales: Mapping[str, str] | None = None,
) -> Advice:
    """The best of some configurations: the largest expected value over what is not known of the best rate.

    Where a rate above the best one costs more than one as far below, an uncertain best rate is kept below.

    Args:
        configs: at least one, each with a `learning_rate`.
        scales: how alpha scales variants, see `facts.scale_of`.
    """
    rows = np.array([learned.describe(c, context, _scale(c, scales)) for c in configs])
    places, spreads = learned.location(rows, context.family), learned.spread(rows, context.family)
    rates = np.log10([float(c["learning_rate"]) for c in configs])
    values = learned.shape((rates - places)[:, None] - spreads[:, None] * _Z) @ _W
    values = values + [merit(c, learned, context) for c in configs]
    at = int(values.argmax())
    reach = _TENTH * spreads[at]
    return Advice(configs[at], *(float(10 ** (places[at] + step)) for step in (0.0, -reach, reach)))


def merit(config: Mapping[str, Any], learned: Learned, context: Context) -> float:
    """What speaks for a configuration at its best rate, as a share of the bump's height."""
    batch = max(1.0, float(config.get("batch_size", 64)))
    gain = learned.rank_gain * math.log2(max(1.0, float(config.get("rank", 16))) / 16)
    gain += learned.batch_gain * math.log2(batch / 64)
    if context.samples:
        gain += facts.SHORT_MERIT.value * max(0.0, math.log2(facts.SHORT.value * batch / context.samples))
    return gain


def reasons(config: Mapping[str, Any], learned: Learned, context: Context, scale: float) -> list[dict[str, Any]]:
    """What the expected rate is the product of: `{"of", "factor", "exponent", "uncertainty"}` each, the first the base.

    Factors that are 1 are left out; the exponent and its standard deviation are None where there is none.
    """
    row = learned.describe(config, context, scale)
    spreads = np.sqrt(np.diag(np.array(learned.covariance)))
    told: list[dict[str, Any]] = []
    for name, value, mean, spread in zip(learned.names, row, learned.mean, spreads, strict=True):
        factor = float(10 ** (value * mean))
        if name == "constant" or abs(factor - 1) > 0.01:
            exponent = None if name == "constant" or name.startswith("variant") else float(mean)
            told.append({"of": name, "factor": factor, "exponent": exponent, "uncertainty": float(spread)})
    kin = learned.families.get(context.family or "")
    if kin is not None and abs(kin[0]) > 0.004:
        told.append({"of": "family", "factor": float(10 ** kin[0]), "exponent": None, "uncertainty": kin[1]})
    return told


def _scale(config: Mapping[str, Any], scales: Mapping[str, str] | None) -> float:
    return facts.scale_of(config, (scales or {}).get(str(config.get("variant"))))
