"""From recorded runs to what they say of LoRA's best learning rate.

A *group* of runs differs in its learning rate alone. Its best rate, and how sure that is, comes from the shape that all
groups share (`learned.Shape`); over the groups, a linear model of the best rate (`learned`) is then conditioned on all
of them at once. How much families and tables scatter beyond that is chosen by the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import facts
from .learned import FEATURES, Context, Learned, Shape, describe

# Beforehand: mean and standard deviation of each exponent. The directions are published (see `facts`), the
# deviations wide enough to hold what disagrees.
_BEFORE: dict[str, tuple[facts.Fact, float]] = {
    "rank": (facts.RANK, 0.2),
    "scale": (facts.SCALE, 0.3),
    "batch": (facts.BATCH, 0.25),
    "samples": (facts.DURATION, 0.1),
    "size_below_10b": (facts.SIZE, 0.1),
    "size_beyond_10b": (facts.SIZE_BEYOND, 0.1),
    "short": (facts.SHORT_PACE, 0.2),
}
_RATE_SPREAD, _VARIANT_SPREAD = 0.3, 0.25
# Where nothing is read that says more.
_UNREAD_SPREAD = 0.4
# Places that a best rate may have, log10, and the shapes tried.
_PLACES = np.round(np.arange(-6.5, -0.99, 0.02), 2)
_WIDTHS_BELOW, _WIDTHS_ABOVE = (0.4, 0.6, 0.8, 1.0, 1.2), (0.2, 0.3, 0.4, 0.5, 0.7)
_POWERS_BELOW, _POWERS_ABOVE = (1.0, 1.5, 2.0), (2.0, 3.0)
# Deviations of standardised values from the shape; which of them a group has is not known.
_NOISES = (0.05, 0.15, 0.4)
_DEVIATIONS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
# Deviation of a group's best rate from its table's, beyond what its own runs leave open.
_REST = 0.05
# Height of the bump in standard deviations of a table's values.
_HEIGHT, _HEIGHT_SPREAD = 3.0, 1.5
# Deviation of a group's level: wide.
_LEVEL = 3.0


@dataclass(frozen=True)
class Table:
    """Recorded runs of one model on one task.

    Args:
        name, source: of the table, and where it is published.
        configs: knob -> value, `learning_rate` among them.
        values: larger is better, a run that diverged with a low one.
    """

    name: str
    source: str
    context: Context
    configs: Sequence[Mapping[str, Any]]
    values: Sequence[float]


@dataclass(frozen=True)
class _Group:
    """Runs that differ in the rate alone: `x` log10 rates `(n,)`, `y` standardised values `(n,)`."""

    table: int
    config: Mapping[str, Any]
    x: np.ndarray
    y: np.ndarray


def fit(tables: Sequence[Table], scales: Mapping[str, str] | None = None, unread: Collection[str] = ()) -> Learned:
    """The prior that these tables leave; with none of them, what is published.

    Args:
        tables: recorded runs.
        scales: how alpha scales variants, see `facts.scale_of`.
        unread: origins whose publications are not believed beforehand either, see `facts.Fact.rests_on`.
    """
    groups = [group for number, table in enumerate(tables) for group in _groups(number, table)]
    shape = _shape(groups)
    places = [_place(group, shape) for group in groups]
    variants = sorted({str(g.config.get("variant", "lora")) for g in groups} | set(facts.VARIANTS))
    names = FEATURES + tuple(f"variant {v}" for v in variants if v != "lora")
    rows = np.array(
        [
            describe(
                g.config,
                tables[g.table].context,
                facts.scale_of(g.config, (scales or {}).get(str(g.config.get("variant")))),
                names,
            )
            for g in groups
        ]
    ).reshape(len(groups), len(names))
    found = np.array(places).reshape(len(groups), 2)
    before = [_before(name, unread) for name in names]
    regression = _Regression(tables, [g.table for g in groups], rows, found[:, 0], found[:, 1], names, before)
    published = [0.0 if fact.rests_on(unread) else fact.value for fact in (facts.RANK_MERIT, facts.BATCH_MERIT)]
    rank_gain, batch_gain = _gains(groups, found[:, 0], shape, np.array(published))
    return regression.learned(shape, rank_gain, batch_gain)


def _groups(number: int, table: Table) -> list[_Group]:
    y = _standardised(np.array(table.values, dtype=float))
    found: dict[tuple[Any, ...], list[int]] = {}
    for row, config in enumerate(table.configs):
        key = tuple(sorted((name, value) for name, value in config.items() if name != "learning_rate"))
        found.setdefault(key, []).append(row)
    groups = []
    for rows in found.values():
        x = np.log10([float(table.configs[row]["learning_rate"]) for row in rows])
        if len(rows) > 1:
            groups.append(_Group(number, table.configs[rows[0]], x, y[rows]))
    return groups


def _standardised(values: np.ndarray) -> np.ndarray:
    """Values of a table in its own unit; the poorer half of its runs counts as equally poor.

    How poor a run is says little of where the best rate lies, and must not set the scale of differences near the best.
    """
    lost = values.max() - values
    lost = np.minimum(lost, np.median(lost))
    return -(lost - lost.mean()) / max(float(lost.std()), 1e-12)


def _evidence(group: _Group, shape: Shape) -> np.ndarray:
    """Log likelihood of each place, `(places,)`: y = level + height bump + noise, level and height integrated out."""
    b = shape(group.x[None] - _PLACES[:, None])  # (p, n)
    n = len(group.x)
    r = group.y[None] + _HEIGHT - _HEIGHT * b
    # Woodbury: the covariance is v I + U U^T with two columns, a wide level's and the height's.
    level, height = _LEVEL * np.ones_like(b), _HEIGHT_SPREAD * b
    ll, hh, lh = (level**2).sum(1), (height**2).sum(1), (level * height).sum(1)
    rr, rl, rh = np.square(r).sum(1), (level * r).sum(1), (height * r).sum(1)
    each = []
    for v in np.square(_NOISES):
        determinant = (v + ll) * (v + hh) - lh**2
        explained = ((v + hh) * rl**2 - 2 * lh * rl * rh + (v + ll) * rh**2) / determinant
        each.append(-0.5 * ((rr - explained) / v + np.log(determinant) + (n - 2) * math.log(v)))
    return np.logaddexp.reduce(each)


def _shape(groups: Sequence[_Group]) -> Shape:
    """The shape with the largest evidence, one side after the other; the published one where there are no groups."""
    shape = Shape()
    if not groups:
        return shape

    def total(shape: Shape) -> float:
        return float(sum(np.logaddexp.reduce(_evidence(group, shape)) for group in groups))

    for _ in range(2):
        tried = [replace(shape, below=w, below_power=p) for w in _WIDTHS_BELOW for p in _POWERS_BELOW]
        shape = max(tried, key=total)
        tried = [replace(shape, above=w, above_power=p) for w in _WIDTHS_ABOVE for p in _POWERS_ABOVE]
        shape = max(tried, key=total)
    return shape


def _place(group: _Group, shape: Shape) -> tuple[float, float]:
    """Mean and standard deviation of log10 of a group's best rate."""
    inside = (group.x.min() - 0.8 < _PLACES) & (group.x.max() + 0.8 > _PLACES)
    log_p = np.where(inside, _evidence(group, shape), -np.inf)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = float(p @ _PLACES)
    return mean, float(np.sqrt(p @ np.square(_PLACES - mean)))


class _Regression:
    """theta and the families from the places of the groups."""

    def __init__(
        self,
        tables: Sequence[Table],
        of_table: Sequence[int],
        rows: np.ndarray,
        places: np.ndarray,
        errors: np.ndarray,
        names: tuple[str, ...],
        before: Sequence[tuple[float, float]],
    ) -> None:
        self.tables, self.names = tables, names
        self.rows, self.places = rows, places
        self.noise = np.square(errors) + _REST**2
        self.kin = sorted({t.context.family for t in tables if t.context.family})
        table_of = np.array(of_table, dtype=int)
        self.same_table = (table_of[:, None] == table_of[None]).astype(float)
        families = [tables[t].context.family for t in of_table]
        self.member = np.array([[f == name for name in self.kin] for f in families], dtype=float).reshape(
            len(families), len(self.kin)
        )
        self.before = np.array([mean for mean, _ in before])
        self.allowed = np.square([spread for _, spread in before])

    def _covariance(self, family: float, table: float) -> np.ndarray:
        return (
            (self.rows * self.allowed) @ self.rows.T
            + family**2 * self.member @ self.member.T
            + table**2 * self.same_table
            + np.diag(self.noise)
        )

    def _log_evidence(self, pair: tuple[float, float]) -> float:
        factor = np.linalg.cholesky(self._covariance(*pair))
        white = np.linalg.solve(factor, self.places - self.rows @ self.before)
        # Weakly against none at all: a handful of families cannot rule out that the next one differs.
        prior = -0.5 * sum((math.log(value / 0.12) / 0.6) ** 2 for value in pair)
        return float(-0.5 * white @ white - np.log(np.diag(factor)).sum() + prior)

    def learned(self, shape: Shape, rank_gain: float, batch_gain: float) -> Learned:
        pairs = [(f, t) for f in _DEVIATIONS for t in _DEVIATIONS]
        family, table = max(pairs, key=self._log_evidence)
        # One Gaussian of theta and the families, conditioned on the places.
        design = np.concatenate([self.rows, self.member], axis=1)
        allowed = np.concatenate([self.allowed, np.full(len(self.kin), family**2)])
        gain = (design * allowed).T @ np.linalg.inv(self._covariance(family, table))
        before = np.concatenate([self.before, np.zeros(len(self.kin))])
        mean = before + gain @ (self.places - self.rows @ self.before)
        covariance = np.diag(allowed) - gain @ (design * allowed)
        k = len(self.names)
        # What a family shares with theta is left out of its own deviation: both are told of one model together.
        kin = {
            name: (float(mean[k + j]), float(math.sqrt(max(covariance[k + j, k + j], 0.0))))
            for j, name in enumerate(self.kin)
        }
        return Learned(
            self.names,
            tuple(mean[:k].tolist()),
            tuple(map(tuple, covariance[:k, :k].tolist())),
            kin,
            family,
            table,
            shape,
            rank_gain,
            batch_gain,
            {t.name: t.source for t in self.tables},
        )


def _before(name: str, unread: Collection[str]) -> tuple[float, float]:
    """Mean and standard deviation of a feature's coefficient beforehand."""
    if name == "constant":
        if facts.RATE.rests_on(unread):
            return math.log10(facts.USUAL_RATE.value), _UNREAD_SPREAD
        return math.log10(facts.RATE.value), _RATE_SPREAD
    if name in _BEFORE:
        fact, spread = _BEFORE[name]
        return (0.0, _UNREAD_SPREAD) if fact.rests_on(unread) else (fact.value, spread)
    known = facts.VARIANTS.get(name.removeprefix("variant "))
    if known is None:
        return 0.0, _VARIANT_SPREAD
    return (0.0, _UNREAD_SPREAD) if known.rests_on(unread) else (math.log10(known.value), _VARIANT_SPREAD)


def _gains(groups: Sequence[_Group], places: np.ndarray, shape: Shape, published: np.ndarray) -> tuple[float, float]:
    """What a doubling of rank and of batch adds to a group's height, as a share of the bump; shrunk to the published.

    A group's height is that of its best run, as far as the shape says that it came to its best.
    """
    left, right = np.eye(2) / 0.03**2, published / 0.03**2
    tables = np.array([g.table for g in groups], dtype=int)
    for table in set(tables.tolist()):
        kinds: dict[str, list[tuple[np.ndarray, float]]] = {}
        for g, place in zip(groups, places, strict=True):
            if g.table != table:
                continue
            row = np.log2([float(g.config.get("rank", 16)) / 16, float(g.config.get("batch_size", 64)) / 64])
            short = _HEIGHT * (1.0 - shape(g.x - place))
            height = float((g.y + short)[int(g.y.argmax())]) / _HEIGHT
            kinds.setdefault(str(g.config.get("variant", "lora")), []).append((row, height))
        for pairs in kinds.values():
            x, h = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
            x, h = x - x.mean(0), h - h.mean()
            left, right = left + x.T @ x / 0.1**2, right + x.T @ h / 0.1**2
    rank, batch = np.linalg.solve(left, right)
    return float(rank), float(batch)
