"""A finite, enumerable search space of named knobs.

Every configuration has one integer index in `[0, len(space))`: a mixed-radix number whose digits are the positions of
the knobs' values, the last knob running fastest. Searchers work on indices; Tune and people see dicts.

A knob may be conditional on the values of others (`Knob.when`). Where its condition does not hold it is inactive: left
out of the configuration, with digit 0, so that positions which differ only there are one configuration with one index.
Such a space is a row of product spaces, one block of indices for each combination of the conditioning values.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, product
from typing import Any

import numpy as np

from .knob import Knob, canonical, infer_knob

__all__ = ["NEUTRAL", "Knob", "Space", "default_space"]

# Up to this size the free indices are listed and permuted; beyond it they are drawn with rejection.
_ENUMERABLE = 1 << 20
_LARGEST = 1 << 62
_MOST_BLOCKS = 1 << 16
# Feature of an inactive ordinal knob: the middle of its range, which is nearest to all of its values together.
NEUTRAL = 0.5


class Space:
    """The product of its knobs' values; with conditional knobs, the union of one product per conditioning combination.

    Examples:
        >>> space = Space.from_dict({"rank": [4, 8, 16], "learning_rate": [1e-4, 1e-3], "dropout": 0.0})
        >>> len(space), space.decode(1)
        (6, {'rank': 4, 'learning_rate': 0.001, 'dropout': 0.0})
        >>> knobs = {"variant": ["lora", "pissa"], "niter": [2, 4]}
        >>> space = Space.from_dict(knobs, when={"niter": {"variant": ["pissa"]}})
        >>> [space.decode(i) for i in range(len(space))]
        [{'variant': 'lora'}, {'variant': 'pissa', 'niter': 2}, {'variant': 'pissa', 'niter': 4}]
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
        # Per knob: (place of a conditioning knob, its positions for which this one is active).
        self._conditions = tuple(self._places(i, k) for i, k in enumerate(self.knobs))
        self._conditional = any(self._conditions)
        self._parents = tuple(sorted({place for conditions in self._conditions for place, _ in conditions}))
        combinations = math.prod(len(self.knobs[j]) for j in self._parents)
        if combinations > _MOST_BLOCKS:
            raise ValueError(f"space: {combinations} combinations of conditioning values; use at most {_MOST_BLOCKS}")
        # Block b holds the configurations of the b-th combination of conditioning values; without any there is one.
        self._combinations = list(product(*(range(len(self.knobs[j])) for j in self._parents)))
        self._block = {combination: b for b, combination in enumerate(self._combinations)}
        self._shapes = [self._shape_of(combination) for combination in self._combinations]
        sizes = [math.prod(shape) for shape in self._shapes]
        self._starts = [0, *accumulate(sizes)]

    def _places(self, at: int, knob: Knob) -> tuple[tuple[int, frozenset[int]], ...]:
        found = []
        for name, wanted in knob.when:
            if name not in self.names[:at]:
                raise ValueError(f"{knob.name}: when names {name!r}, which is no earlier knob; put that one before it")
            place = self.names.index(name)
            if self.knobs[place].when:
                raise ValueError(f"{knob.name}: when names {name!r}, which is conditional itself; use another knob")
            found.append((place, frozenset(self.knobs[place].position(value) for value in wanted)))
        return tuple(found)

    def _shape_of(self, combination: tuple[int, ...]) -> tuple[int, ...]:
        """Radix of every digit within a block: 1 for conditioning knobs (the block says them) and inactive ones."""
        given = dict(zip(self._parents, combination, strict=True))
        return tuple(
            1 if i in given or any(given[place] not in wanted for place, wanted in self._conditions[i]) else len(knob)
            for i, knob in enumerate(self.knobs)
        )

    @classmethod
    def from_dict(
        cls, knobs: Mapping[str, Any], when: Mapping[str, Mapping[str, Iterable[Any]]] | None = None
    ) -> Space:
        """`{name: value, list of values, or Knob}` to a space; a single value is a fixed knob.

        All-number lists become ordinal knobs, on a log scale where their values are closer to evenly spaced in the
        logarithm than in themselves; anything else becomes categorical. `when` gives the conditions (`Knob.when`) of
        those knobs that have one, by name.
        """
        conditions = when or {}
        return cls(
            v if isinstance(v, Knob) else infer_knob(name, v, conditions.get(name, {})) for name, v in knobs.items()
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(k.name for k in self.knobs)

    @property
    def size(self) -> int:
        return self._starts[-1]

    @property
    def conditional(self) -> bool:
        """Whether any knob has a condition."""
        return self._conditional

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
        """The digits of `index`: each knob's value position, 0 where inactive. IndexError when out of range."""
        if not 0 <= index < self.size:
            raise IndexError(f"index {index} is outside the space of {self.size} configurations")
        block = bisect_right(self._starts, index) - 1 if self._conditional else 0
        index = int(index) - self._starts[block]
        digits = []
        for base in reversed(self._shapes[block]):
            index, digit = divmod(index, base)
            digits.append(digit)
        digits.reverse()
        for place, digit in zip(self._parents, self._combinations[block], strict=True):
            digits[place] = digit
        return tuple(digits)

    def index(self, positions: Iterable[int]) -> int:
        """Inverse of `positions`; the digits of inactive knobs are not looked at."""
        digits = list(positions)
        block = self._block[tuple(digits[place] for place in self._parents)]
        index = 0
        for base, digit in zip(self._shapes[block], digits, strict=True):
            index = index * base + (int(digit) if base > 1 else 0)
        return self._starts[block] + index

    def is_active(self, place: int, positions: Sequence[int]) -> bool:
        """Whether the condition of the knob at `place` holds, given the positions of the knobs before it."""
        return all(positions[parent] in wanted for parent, wanted in self._conditions[place])

    def active(self, positions: Sequence[int]) -> tuple[bool, ...]:
        """For each knob, whether its condition holds at these positions."""
        return tuple(self.is_active(place, positions) for place in range(len(self.knobs)))

    def decode(self, index: int) -> dict[str, Any]:
        """The configuration with this index; inactive knobs are left out."""
        positions = self.positions(index)
        shown = zip(self.knobs, positions, self.active(positions), strict=True)
        return {k.name: k.values[p] for k, p, active in shown if active}

    def encode(self, config: Mapping[str, Any]) -> int:
        """The index of a configuration.

        Keys that are no knob are ignored, and so are inactive knobs, present or not; a fixed knob may be left out.

        Raises:
            ValueError: a missing knob, or a value outside the space; the message names both.
        """
        return self.index(self._positions_of(config)[0])

    def _positions_of(self, config: Mapping[str, Any]) -> tuple[list[int], list[Knob]]:
        """The digits of a configuration, and the knobs that are active in it."""
        digits: list[int] = []
        active: list[Knob] = []
        for place, knob in enumerate(self.knobs):
            if self.is_active(place, digits):
                digits.append(knob.position(self._value(knob, config)))
                active.append(knob)
            else:
                digits.append(0)
        return digits, active

    @staticmethod
    def _value(knob: Knob, config: Mapping[str, Any]) -> Any:
        if knob.name in config:
            return config[knob.name]
        if len(knob) == 1:
            return knob.values[0]
        raise ValueError(f"{knob.name}: is missing from the configuration; add it")

    def key(self, config: Mapping[str, Any]) -> str:
        """A stable id of the active values (12 hex digits), whatever the order of keys and spelling of numbers."""
        active = self._positions_of(config)[1] if self._conditional else self.knobs
        pairs = sorted((k.name, canonical(self._value(k, config))) for k in active)
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

    def digits(self, indices: Collection[int]) -> np.ndarray:
        """`positions` of many indices, with -1 where a knob is inactive: `(n, knobs)` int64."""
        local = np.fromiter(indices, dtype=np.int64, count=len(indices))
        blocks = np.searchsorted(self._starts, local, side="right") - 1
        local = local - np.array(self._starts)[blocks]
        out = np.zeros((len(local), len(self.knobs)), dtype=np.int64)
        for b in np.unique(blocks):
            rows = blocks == b
            out[rows] = np.stack(np.unravel_index(local[rows], self._shapes[b]), axis=1)
            out[np.ix_(rows, self._parents)] = self._combinations[b]
            head = dict(zip(self._parents, self._combinations[b], strict=True))
            inactive = [any(head[place] not in wanted for place, wanted in found) for found in self._conditions]
            out[np.ix_(rows, inactive)] = -1
        return out

    def features(self, indices: Collection[int]) -> np.ndarray:
        """Coordinates, shape `(n, d)` in [0, 1]: a column per ordinal knob, a one-hot block per categorical one.

        An inactive ordinal knob is at 0.5, an inactive categorical one has the same share in every column of its block.
        """
        digits = self.digits(indices)
        columns = []
        for j, knob in enumerate(self.knobs):
            table = knob.coordinates()
            neutral = np.full((1, table.shape[1]), NEUTRAL if knob.kind == "ordinal" else 1.0 / len(knob))
            # Digit -1, inactive, is the last row.
            columns.append(np.concatenate([table, neutral])[digits[:, j]])
        return np.concatenate(columns, axis=1)

    def neighbours(self, index: int) -> list[int]:
        """Indices that differ in one active knob: by one step for ordinals, by any value for categoricals.

        Knobs that this makes active take their first value.
        """
        here = list(self.positions(index))
        found: list[int] = []
        for j, (knob, active) in enumerate(zip(self.knobs, self.active(here), strict=True)):
            near = range(len(knob)) if knob.kind == "categorical" else (here[j] - 1, here[j] + 1)
            found.extend(
                self.index([*here[:j], p, *here[j + 1 :]])
                for p in (near if active else ())
                if 0 <= p < len(knob) and p != here[j]
            )
        return found

    def to_tune(self) -> dict[str, Any]:
        """The same space for Ray Tune: `{name: tune.choice(values)}`.

        Raises:
            ValueError: a conditional knob, which Tune cannot express.
        """
        from ray import tune

        for knob in self.knobs:
            if knob.when:
                raise ValueError(f"{knob.name}: Tune knows no conditional knobs; pass space=... to the searcher")
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
