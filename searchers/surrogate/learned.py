"""Where LoRA's best learning rate lies, as numbers learned from recorded runs (`fitting`) and how sure they are.

    log10 rate = theta . features(configuration, context) + family + table + rest,

| symbol   | meaning                                                                                    |
|----------|--------------------------------------------------------------------------------------------|
| features | `FEATURES`, decades from a reference each, and an indicator per variant: see `describe`    |
| theta    | normal; beforehand around what is published (`knowledge`), afterwards `mean`, `covariance` |
| family   | normal of deviation `between_families`: what models of one family have in common           |
| table    | normal of deviation `between_tables`: what else differs between recorded sweeps            |

The exponents are thus uncertain numbers: a prior over them that recorded runs narrow. That of s tells in how far rate
and alpha are one knob: -1 where only their product counts, 0 where alpha does not matter.

Reference: linear-Gaussian regression, Bishop, "Pattern recognition and machine learning", 2006, section 3.3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import facts

FEATURES = ("constant", "rank", "scale", "batch", "samples", "size_below_10b", "size_beyond_10b", "short")
# Where the size of a model is not known.
_USUAL_SIZE = 4e9
SHIPPED = Path(__file__).with_name("prior.json")


@dataclass(frozen=True)
class Context:
    """What is known beside the configuration: `samples` of a run, `parameters` that a token meets, the model's family.

    For a mixture of experts, `parameters` are the active ones.
    """

    samples: float | None = None
    parameters: float | None = None
    family: str | None = None


@dataclass(frozen=True)
class Shape:
    """How values fall on either side of the best rate: exp(-|u / width|^power / 2), u in decades.

    Args:
        below, above: widths. below_power, above_power: 2 is a Gaussian, less a sharper peak, more a flat one.
    """

    below: float = facts.LOW.value
    above: float = facts.HIGH.value
    below_power: float = 2.0
    above_power: float = 2.0

    def __call__(self, u: np.ndarray) -> np.ndarray:
        under = np.abs(u) / self.below
        over = np.abs(u) / self.above
        return np.exp(-0.5 * np.where(u < 0, under**self.below_power, over**self.above_power))


@dataclass(frozen=True)
class Learned:
    """A fitted prior.

    Attributes:
        names: of the features; mean `(k,)`, covariance `(k, k)` of theta.
        families: deviation of each known family and its standard deviation, decades.
        shape: of values around the best rate.
        rank_gain, batch_gain: what a doubling of the rank or the batch adds at the best rate, as a share of the bump.
        tables: what it was fitted to: name -> source.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    families: Mapping[str, tuple[float, float]]
    between_families: float
    between_tables: float
    shape: Shape
    rank_gain: float
    batch_gain: float
    tables: Mapping[str, str] = field(default_factory=dict)

    def location(self, rows: np.ndarray, family: str | None = None) -> np.ndarray:
        """Expected log10 of the best rate, `(n,)`, of features `(n, k)`."""
        return rows @ np.array(self.mean) + self.families.get(family or "", (0.0, 0.0))[0]

    def spread(self, rows: np.ndarray, family: str | None = None) -> np.ndarray:
        """Standard deviation of log10 of the best rate, `(n,)`."""
        inside = np.einsum("ij,jk,ik->i", rows, np.array(self.covariance), rows)
        return np.sqrt(np.maximum(inside, 0.0) + self.unexplained(family) ** 2)

    def unexplained(self, family: str | None = None) -> float:
        """Deviation that no feature explains, decades."""
        known = self.families.get(family or "")
        return math.hypot(self.between_families if known is None else known[1], self.between_tables)

    def describe(self, config: Mapping[str, Any], context: Context, scale: float) -> np.ndarray:
        """Features of a configuration, `(k,)`; `scale` is s, see `facts.scale_of`."""
        return describe(config, context, scale, self.names)

    def coefficient(self, name: str) -> float:
        """That of one feature; 0 of one that it does not know."""
        return self.mean[self.names.index(name)] if name in self.names else 0.0

    def save(self, path: str | Path) -> None:
        """Writes it as JSON."""
        Path(path).write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Learned:
        """Reads what `save` wrote."""
        told = json.loads(Path(path).read_text())
        told["names"], told["mean"] = tuple(told["names"]), tuple(told["mean"])
        told["covariance"] = tuple(tuple(row) for row in told["covariance"])
        told["shape"] = Shape(**told["shape"])
        told["families"] = {name: tuple(pair) for name, pair in told["families"].items()}
        return cls(**told)


@cache
def shipped() -> Learned:
    """The prior that comes with the package; its `tables` say what it has seen."""
    return Learned.load(SHIPPED)


def describe(config: Mapping[str, Any], context: Context, scale: float, names: Sequence[str]) -> np.ndarray:
    """Features of a configuration in the order of `names`; what is unknown counts as its reference, 0."""
    batch = float(config.get("batch_size", 64))
    size = math.log10((context.parameters or _USUAL_SIZE) / 1e9)
    short = facts.SHORT.value * batch / context.samples if context.samples else 1.0
    variant = f"variant {config.get('variant', 'lora')}"
    found = {
        "constant": 1.0,
        "rank": math.log10(float(config.get("rank", 16)) / 16),
        "scale": math.log10(scale),
        "batch": math.log10(batch / 64),
        "samples": math.log10(context.samples / 50_000) if context.samples and short <= 1 else 0.0,
        "size_below_10b": min(size, 1.0),
        "size_beyond_10b": max(size - 1.0, 0.0),
        "short": math.log10(min(max(short, 1.0), facts.SHORT_MOST.value)),
    }
    return np.array([found[name] if name in found else float(name == variant) for name in names])


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, Iterable) and not isinstance(value, str) else value
