"""A finite, enumerable search space of named knobs.

Every configuration has one integer index in `[0, len(space))`: a mixed-radix number whose digits are the positions of
the knobs' values, the last knob running fastest. Searchers work on indices; Tune and people see dicts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["ordinal", "categorical"]

# Up to this size the free indices are listed and permuted; beyond it they are drawn with rejection.
_ENUMERABLE = 1 << 20
_LARGEST = 1 << 62


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)


def _canonical(value: Any) -> Any:
    """The same JSON value for every spelling of a number: 8, 8.0 and numpy's 8 are one value; True stays True."""
    if isinstance(value, np.bool_):
        return bool(value)
    if _is_number(value):
        # 12 significant digits: enough to tell knob values apart, few enough to forgive 0.1 + 0.2.
        return f"{float(value):.12g}"
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    return f"s:{value}"


def _token(value: Any) -> str:
    return json.dumps(_canonical(value), sort_keys=True)


@dataclass(frozen=True)
class Knob:
    """One hyperparameter and the values it may take.

    Args:
        name: key in the configuration dict.
        values: non-empty, unique. Ordinal values are numbers and are put in ascending order.
        kind: `ordinal` (order carries meaning) or `categorical`.
        log: whether distances between ordinal values are measured on a logarithmic scale (needs positive values).

    Raises:
        ValueError: empty or repeated values, a non-number in an ordinal knob, a log scale over values <= 0.
    """

    name: str
    values: tuple[Any, ...]
    kind: Kind = "ordinal"
    log: bool = False

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"knob name: {self.name!r} is not a non-empty string")
        values = tuple(tuple(v) if isinstance(v, list) else v for v in self.values)
        values = tuple(v.item() if isinstance(v, np.generic) else v for v in values)
        if not values:
            raise ValueError(f"{self.name}: has no values; give at least one")
        if self.kind not in ("ordinal", "categorical"):
            raise ValueError(f"{self.name}: kind {self.kind!r} is unknown; use 'ordinal' or 'categorical'")
        if self.kind == "ordinal":
            for value in values:
                if not _is_number(value) or not math.isfinite(float(value)):  # type: ignore[arg-type]
                    raise ValueError(f"{self.name}: {value!r} is not a finite number; use kind='categorical'")
                if self.log and float(value) <= 0:  # type: ignore[arg-type]
                    raise ValueError(f"{self.name}: {value!r} is not positive; use log=False")
            values = tuple(sorted(values))
        elif self.log:
            raise ValueError(f"{self.name}: log=True needs an ordinal knob")
        seen: set[str] = set()
        for value in values:
            if _token(value) in seen:
                raise ValueError(f"{self.name}: value {value!r} is given twice; remove one")
            seen.add(_token(value))
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)

    def position(self, value: Any) -> int:
        """Position of `value` among the values, whatever its spelling (8, 8.0, numpy's 8); ValueError if absent."""
        wanted = _token(value)
        for i, candidate in enumerate(self.values):
            if _token(candidate) == wanted:
                return i
        shown = ", ".join(str(v) for v in self.values[:12]) + (", ..." if len(self) > 12 else "")
        raise ValueError(f"{self.name}: {value!r} is not in the search space; choose one of {shown}")

    def coordinates(self) -> np.ndarray:
        """Shape `(len(values), columns)` in [0, 1]: one column for an ordinal knob, one-hot for a categorical one."""
        if self.kind == "categorical":
            return np.eye(len(self))
        x = np.array(self.values, dtype=float)
        if self.log:
            x = np.log(x)
        span = x[-1] - x[0]
        scaled = (x - x[0]) / span if span > 0 else np.zeros_like(x)
        return scaled[:, None]


class Space:
    """The product of its knobs' values.

    Example:
        >>> space = Space.from_dict({"rank": [4, 8, 16], "learning_rate": [1e-4, 1e-3], "dropout": 0.0})
        >>> len(space), space.decode(1)
        (6, {'rank': 4, 'learning_rate': 0.001, 'dropout': 0.0})
    """

    def __init__(self, knobs: Iterable[Knob]) -> None:
        self.knobs: tuple[Knob, ...] = tuple(knobs)
        if not self.knobs:
            raise ValueError("space: has no knobs; give at least one")
        for i, name in enumerate(self.names):
            if name in self.names[:i]:
                raise ValueError(f"{name}: is given twice in the search space; remove one")
        if math.prod(len(k) for k in self.knobs) > _LARGEST:
            raise ValueError("space: has more than 2^62 configurations; narrow some knobs")
        self._shape = tuple(len(k) for k in self.knobs)

    @classmethod
    def from_dict(cls, knobs: Mapping[str, Any]) -> Space:
        """`{name: value, list of values, or Knob}` to a space; a single value is a fixed knob.

        All-number lists become ordinal knobs, on a log scale where their values are closer to evenly spaced in the
        logarithm than in themselves; anything else becomes categorical.
        """
        return cls(v if isinstance(v, Knob) else _infer(name, v) for name, v in knobs.items())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(k.name for k in self.knobs)

    @property
    def size(self) -> int:
        return math.prod(self._shape)

    def __len__(self) -> int:
        return self.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.knobs == other.knobs

    def __hash__(self) -> int:
        return hash(self.knobs)

    def __repr__(self) -> str:
        return f"Space({', '.join(f'{k.name}[{len(k)}]' for k in self.knobs)}: {self.size:,} configurations)"

    def __contains__(self, config: object) -> bool:
        if not isinstance(config, Mapping):
            return False
        try:
            self.encode(config)
        except ValueError:
            return False
        return True

    def positions(self, index: int) -> tuple[int, ...]:
        """The digits of `index`: each knob's value position. IndexError when out of range."""
        if not 0 <= index < self.size:
            raise IndexError(f"index {index} is outside the space of {self.size} configurations")
        digits = []
        for base in reversed(self._shape):
            index, digit = divmod(int(index), base)
            digits.append(digit)
        return tuple(reversed(digits))

    def index(self, positions: Iterable[int]) -> int:
        """Inverse of `positions`."""
        index = 0
        for base, digit in zip(self._shape, positions, strict=True):
            index = index * base + int(digit)
        return index

    def decode(self, index: int) -> dict[str, Any]:
        """The configuration with this index."""
        return {k.name: k.values[p] for k, p in zip(self.knobs, self.positions(index), strict=True)}

    def encode(self, config: Mapping[str, Any]) -> int:
        """The index of a configuration. Keys that are no knob are ignored; a fixed knob may be left out.

        Raises:
            ValueError: a missing knob, or a value outside the space; the message names both.
        """
        return self.index(k.position(self._value(k, config)) for k in self.knobs)

    @staticmethod
    def _value(knob: Knob, config: Mapping[str, Any]) -> Any:
        if knob.name in config:
            return config[knob.name]
        if len(knob) == 1:
            return knob.values[0]
        raise ValueError(f"{knob.name}: is missing from the configuration; add it")

    def key(self, config: Mapping[str, Any]) -> str:
        """A stable id of the knob values (12 hex digits), whatever the order of keys and spelling of numbers."""
        pairs = sorted((k.name, _canonical(self._value(k, config))) for k in self.knobs)
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:12]

    def sample(self, rng: np.random.Generator, n: int, exclude: Collection[int] = ()) -> list[int]:
        """Up to `n` different uniformly drawn indices outside `exclude`; fewer only when no more are left."""
        taken = {i for i in exclude if 0 <= i < self.size}
        n = min(n, self.size - len(taken))
        if n <= 0:
            return []
        if self.size <= _ENUMERABLE and (n + len(taken)) * 4 > self.size:
            free = np.setdiff1d(np.arange(self.size), np.fromiter(taken, dtype=np.int64, count=len(taken)))
            return [int(i) for i in rng.permutation(free)[:n]]
        drawn: list[int] = []
        while len(drawn) < n:
            i = int(rng.integers(self.size))
            if i not in taken:
                taken.add(i)
                drawn.append(i)
        return drawn

    def features(self, indices: Collection[int]) -> np.ndarray:
        """Coordinates, shape `(n, d)` in [0, 1]: a column per ordinal knob, a one-hot block per categorical one."""
        tables = [k.coordinates() for k in self.knobs]
        rows = [self.positions(i) for i in indices]
        if not rows:
            return np.zeros((0, sum(t.shape[1] for t in tables)))
        digits = np.array(rows)
        return np.concatenate([t[digits[:, j]] for j, t in enumerate(tables)], axis=1)

    def neighbours(self, index: int) -> list[int]:
        """Indices that differ in one knob: by one step for ordinals, by any value for categoricals."""
        here = list(self.positions(index))
        found = []
        for j, knob in enumerate(self.knobs):
            near = range(len(knob)) if knob.kind == "categorical" else (here[j] - 1, here[j] + 1)
            for p in near:
                if 0 <= p < len(knob) and p != here[j]:
                    found.append(self.index([*here[:j], p, *here[j + 1 :]]))
        return found

    def to_tune(self) -> dict[str, Any]:
        """The same space for Ray Tune: `{name: tune.choice(values)}`."""
        from ray import tune

        return {k.name: tune.choice(list(k.values)) for k in self.knobs}

    @classmethod
    def from_tune(cls, param_space: Mapping[str, Any]) -> Space:
        """A space from Tune's `{name: tune.choice(...)}`; constants become fixed knobs.

        Raises:
            ValueError: any other Tune domain, which is not finite.
        """
        from ray.tune.search.sample import Categorical, Domain

        knobs: dict[str, Any] = {}
        for name, domain in param_space.items():
            if isinstance(domain, Categorical):
                knobs[name] = list(domain.categories)
            elif isinstance(domain, Domain):
                raise ValueError(f"{name}: {domain} is not finite; use tune.choice([...])")
            else:
                knobs[name] = domain
        return cls.from_dict(knobs)


def _infer(name: str, given: Any) -> Knob:
    values = tuple(given) if isinstance(given, list | tuple | range | np.ndarray) else (given,)
    if not values or not all(_is_number(v) for v in values):
        return Knob(name, values, "categorical")
    return Knob(name, values, "ordinal", log=_evenly_spaced_in_log(values))


def _evenly_spaced_in_log(values: tuple[Any, ...]) -> bool:
    x = np.sort(np.array(values, dtype=float))
    if len(x) < 2 or x[0] <= 0:
        return False
    if len(x) == 2:
        return bool(x[1] / x[0] >= 4)
    linear, logarithmic = np.diff(x), np.diff(np.log(x))
    return bool(np.std(logarithmic) / np.mean(logarithmic) < np.std(linear) / np.mean(linear))


def default_space() -> Space:
    """Table 1 of "Efficient hyper-parameter search for LoRA via language-aided Bayesian optimization": 45,360 points.

    Alpha is searched as `alpha_ratio` = alpha / rank, so its range follows the rank.
    """
    return Space(
        (
            Knob("rank", tuple(2**i for i in range(9)), log=True),
            Knob("alpha_ratio", tuple(2.0**i for i in range(-1, 8)), log=True),
            Knob("batch_size", tuple(2**i for i in range(1, 9)), log=True),
            Knob("learning_rate", (1e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3), log=True),
            Knob("dropout", (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)),
        )
    )
