"""A finite, enumerable search space of named knobs.

Every configuration has one integer index in `[0, len(space))`: a mixed-radix number whose digits are the positions of
the knobs' values, the last knob running fastest. Searchers work on indices; Tune and people see dicts.

A knob may be conditional on the values of others (`Knob.when`). Where its condition does not hold it is inactive: left
out of the configuration, with digit 0, so that positions which differ only there are one configuration with one index.
Such a space is a row of product spaces, one block of indices for each combination of the conditioning values.

A value may exist only beside some values of earlier knobs (`Limit`): a rank that one variant cannot have. It is then no
digit of the blocks where it is missing, so that every index is still one configuration that can be had.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from .knob import Knob, canonical, infer_knob

__all__ = ["NEUTRAL", "Knob", "Limit", "Space", "paper_space"]

# Up to this size the free indices are listed and permuted; beyond it they are drawn with rejection.
_ENUMERABLE = 1 << 20
_LARGEST = 1 << 62
_MOST_BLOCKS = 1 << 16
# Feature of an inactive ordinal knob: the middle of its range, which is nearest to all of its values together.
NEUTRAL = 0.5


@dataclass(frozen=True)
class Limit:
    """Some values of a knob alone, where earlier knobs have certain values.

    Args:
        knob: its name.
        values: those that remain, of the knob's own; with several limits that hold, those in all of them.
        given: `{name of an earlier knob: its values}`, all of them at once. Kept as a tuple of pairs.

    Example:
        >>> Limit("rank", (4, 8), {"variant": ["pissa"]}).given
        (('variant', ('pissa',)),)
    """

    knob: str
    values: tuple[Any, ...]
    given: Any

    def __post_init__(self) -> None:
        pairs = self.given.items() if isinstance(self.given, Mapping) else self.given
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "given", tuple((name, tuple(wanted)) for name, wanted in pairs))


# Places of conditioning knobs, each with its positions under which something holds.
_Given = tuple[tuple[int, frozenset[int]], ...]


class Space:
    """The product of its knobs' values; with conditional knobs, the union of one product per conditioning combination.

    Args:
        knobs: in the order of the digits.
        limits: which values exist only beside some of others.

    Examples:
        >>> space = Space.from_dict({"rank": [4, 8, 16], "learning_rate": [1e-4, 1e-3], "dropout": 0.0})
        >>> len(space), space.decode(1)
        (6, {'rank': 4, 'learning_rate': 0.001, 'dropout': 0.0})
        >>> knobs = {"variant": ["lora", "pissa"], "niter": [2, 4]}
        >>> space = Space.from_dict(knobs, when={"niter": {"variant": ["pissa"]}})
        >>> [space.decode(i) for i in range(len(space))]
        [{'variant': 'lora'}, {'variant': 'pissa', 'niter': 2}, {'variant': 'pissa', 'niter': 4}]
        >>> limits = [Limit("rank", (4,), {"variant": ["pissa"]})]
        >>> space = Space.from_dict({"variant": ["lora", "pissa"], "rank": [4, 256]}, limits=limits)
        >>> [tuple(space.decode(i).values()) for i in range(len(space))]
        [('lora', 4), ('lora', 256), ('pissa', 4)]

    Raises:
        ValueError: no knob, one given twice, a condition or limit that names no earlier knob or no value of it, a limit
            that leaves nothing.
    """

    def __init__(self, knobs: Iterable[Knob], limits: Iterable[Limit] = ()) -> None:
        self.knobs: tuple[Knob, ...] = tuple(knobs)
        self.limits: tuple[Limit, ...] = tuple(limits)
        if not self.knobs:
            raise ValueError("space: has no knobs; give at least one")
        for i, name in enumerate(self.names):
            if name in self.names[:i]:
                raise ValueError(f"{name}: is given twice in the search space; remove one")
        if math.prod(len(k) for k in self.knobs) > _LARGEST:
            raise ValueError("space: has more than 2^62 configurations; narrow some knobs")
        # Per knob: (place of a conditioning knob, its positions for which this one is active).
        self._conditions = tuple(self._places(i, k) for i, k in enumerate(self.knobs))
        # Per knob: (what a limit is given, the positions that it leaves).
        self._limits: tuple[list[tuple[_Given, frozenset[int]]], ...] = tuple([] for _ in self.knobs)
        for limit in self.limits:
            self._add(limit)
        self._conditional = any(self._conditions) or any(self._limits)
        given = [*self._conditions, *(conditions for limits in self._limits for conditions, _ in limits)]
        self._parents = tuple(sorted({place for conditions in given for place, _ in conditions}))
        combinations = math.prod(len(self.knobs[j]) for j in self._parents)
        if combinations > _MOST_BLOCKS:
            raise ValueError(f"space: {combinations} combinations of conditioning values; use at most {_MOST_BLOCKS}")
        # Block b holds the configurations of the b-th combination of conditioning values; without any there is one.
        self._combinations = list(self._combine({}, self._parents))
        self._block = {combination: b for b, combination in enumerate(self._combinations)}
        self._choices = [self._choices_of(combination) for combination in self._combinations]
        self._shapes = [tuple(len(positions) for positions in choices) for choices in self._choices]
        sizes = [math.prod(shape) for shape in self._shapes]
        self._starts = [0, *accumulate(sizes)]

    def _places(self, at: int, knob: Knob) -> _Given:
        found = []
        for name, wanted in knob.when:
            place = self._earlier(at, name, "when")
            if self.knobs[place].when:
                raise ValueError(f"{knob.name}: when names {name!r}, which is conditional itself; use another knob")
            found.append((place, frozenset(self.knobs[place].position(value) for value in wanted)))
        return tuple(found)

    def _earlier(self, at: int, name: str, told: str) -> int:
        """The place of a knob before the one at `at`."""
        if name not in self.names[:at]:
            knob = self.names[at]
            raise ValueError(f"{knob}: {told} names {name!r}, which is no earlier knob; put that one before it")
        return self.names.index(name)

    def _add(self, limit: Limit) -> None:
        if limit.knob not in self.names:
            raise ValueError(f"{limit.knob}: is limited, but no knob of the space; choose one of {self.names}")
        at = self.names.index(limit.knob)
        given = []
        for name, wanted in limit.given:
            place = self._earlier(at, name, "a limit")
            given.append((place, frozenset(self.knobs[place].position(value) for value in wanted)))
        left = frozenset(self.knobs[at].position(value) for value in limit.values)
        self._limits[at].append((tuple(given), left))

    def _combine(self, head: dict[int, int], places: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """All combinations of conditioning positions, in ascending order; `head` has those of the places before."""
        if not places:
            yield tuple(head[place] for place in self._parents)
            return
        place, rest = places[0], places[1:]
        for position in self._allowed(place, head) if self._holds(self._conditions[place], head) else (0,):
            yield from self._combine({**head, place: position}, rest)

    def _holds(self, given: _Given, at: Mapping[int, int]) -> bool:
        return all(at[place] in wanted and self._holds(self._conditions[place], at) for place, wanted in given)

    def _allowed(self, place: int, at: Mapping[int, int]) -> Sequence[int]:
        """Positions that the knob at `place` may take, ascending, given the positions of the conditioning ones."""
        left: Sequence[int] = range(len(self.knobs[place]))
        for given, values in self._limits[place]:
            if self._holds(given, at):
                left = [position for position in left if position in values]
        if not left:
            told = ", ".join(f"{self.names[j]} = {self.knobs[j].values[p]}" for j, p in at.items())
            raise ValueError(f"{self.names[place]}: no value is left with {told}; leave out one of those")
        return left

    def _choices_of(self, combination: tuple[int, ...]) -> tuple[Sequence[int], ...]:
        """The positions of every digit within a block: one for inactive knobs and for conditioning ones."""
        given = dict(zip(self._parents, combination, strict=True))
        return tuple(
            (given[i],) if i in given else self._allowed(i, given) if self._holds(self._conditions[i], given) else (0,)
            for i in range(len(self.knobs))
        )

    @classmethod
    def from_dict(
        cls,
        knobs: Mapping[str, object],
        when: Mapping[str, Mapping[str, Iterable[object]]] | None = None,
        limits: Iterable[Limit] = (),
    ) -> Space:
        """`{name: value, list of values, or Knob}` to a space; a single value is a fixed knob.

        All-number lists become ordinal knobs, on a log scale where their values are closer to evenly spaced in the
        logarithm than in themselves; anything else becomes categorical. `when` gives the conditions (`Knob.when`) of
        those knobs that have one, by name.
        """
        conditions = when or {}
        made = [
            v if isinstance(v, Knob) else infer_knob(name, v, conditions.get(name, {})) for name, v in knobs.items()
        ]
        return cls(made, limits)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(k.name for k in self.knobs)

    @property
    def size(self) -> int:
        return self._starts[-1]

    @property
    def conditional(self) -> bool:
        """Whether any knob has a condition, or values that exist only beside some of others."""
        return self._conditional

    def __len__(self) -> int:
        return self.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and (self.knobs, self.limits) == (other.knobs, other.limits)

    def __hash__(self) -> int:
        return hash((self.knobs, self.limits))

    def __getstate__(self) -> dict[str, object]:
        return {"knobs": self.knobs, "limits": self.limits}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Made anew, so that what is derived is this release's own.
        Space.__init__(self, state["knobs"], state.get("limits", ()))

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
        for choices in reversed(self._choices[block]):
            index, digit = divmod(index, len(choices))
            digits.append(choices[digit])
        digits.reverse()
        return tuple(digits)

    def index(self, positions: Iterable[int]) -> int:
        """Inverse of `positions`; any positions will do, and stand for what `settled` makes of them."""
        digits = self.settled(positions) if self._conditional else [int(digit) for digit in positions]
        block = self._block[tuple(digits[place] for place in self._parents)]
        index = 0
        for choices, digit in zip(self._choices[block], digits, strict=True):
            index = index * len(choices) + choices.index(digit)
        return self._starts[block] + index

    def settled(self, positions: Iterable[int]) -> list[int]:
        """Positions that are a configuration.

        0 where a knob is inactive; where a limit rules a value out, the nearest that can be had beside the earlier
        knobs' values (of two as near, the first).
        """
        digits: list[int] = []
        for place, given in enumerate(positions):
            digit = int(given)
            if not self.is_active(place, digits):
                digit = 0
            elif self._limits[place]:
                digit = min(self.choices(place, digits), key=lambda position: abs(position - digit))
            digits.append(digit)
        return digits

    def is_active(self, place: int, positions: Sequence[int]) -> bool:
        """Whether the condition of the knob at `place` holds, given the positions of the knobs before it."""
        return all(positions[parent] in wanted for parent, wanted in self._conditions[place])

    def choices(self, place: int, positions: Sequence[int]) -> Sequence[int]:
        """Positions that the active knob at `place` may take, ascending, given those of the knobs before it."""
        return self._allowed(place, {i: positions[i] for i in self._parents if i < place})

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

        Example:
            >>> Space.from_dict({"rank": [4, 8], "dropout": 0.0}).encode({"rank": 8.0})
            1
        """
        return self.index(self._positions_of(config)[0])

    def _positions_of(self, config: Mapping[str, object]) -> tuple[list[int], list[Knob]]:
        """The digits of a configuration, and the knobs that are active in it."""
        digits: list[int] = []
        active: list[Knob] = []
        for place, knob in enumerate(self.knobs):
            if self.is_active(place, digits):
                position = knob.position(self._value(knob, config))
                if self._limits[place] and position not in self.choices(place, digits):
                    left = ", ".join(str(knob.values[p]) for p in self.choices(place, digits))
                    told = f"{knob.name}: {knob.values[position]!r} cannot be had with these other values"
                    raise ValueError(f"{told}; choose one of {left}")
                digits.append(position)
                active.append(knob)
            else:
                digits.append(0)
        return digits, active

    @staticmethod
    def _value(knob: Knob, config: Mapping[str, object]) -> object:
        if knob.name in config:
            return config[knob.name]
        if len(knob) == 1:
            return knob.values[0]
        raise ValueError(f"{knob.name}: is missing from the configuration; add it")

    def key(self, config: Mapping[str, object]) -> str:
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
            places = np.unravel_index(local[rows], self._shapes[b])
            choices = self._choices[b]
            out[rows] = np.stack([np.asarray(c)[p] for c, p in zip(choices, places, strict=True)], axis=1)
            head = dict(zip(self._parents, self._combinations[b], strict=True))
            inactive = [not self._holds(found, head) for found in self._conditions]
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

        Knobs that this makes active take their first value, those whose value cannot be had beside it the nearest one.

        Example:
            >>> space = Space.from_dict({"rank": [4, 8, 16, 32]})
            >>> [space.decode(index)["rank"] for index in space.neighbours(1)]
            [4, 16]
        """
        here = list(self.positions(index))
        found: list[int] = []
        for j, (knob, active) in enumerate(zip(self.knobs, self.active(here), strict=True)):
            if not active:
                continue
            others = [p for p in self.choices(j, here) if p != here[j]]
            if knob.kind != "categorical":
                others = [p for p in others if p < here[j]][-1:] + [p for p in others if p > here[j]][:1]
            found.extend(self.index([*here[:j], p, *here[j + 1 :]]) for p in others)
        return found

    def to_tune(self) -> dict[str, object]:
        """The same space for Ray Tune: `{name: tune.choice(values)}`.

        Raises:
            ValueError: a conditional knob or a limit, which Tune cannot express.
        """
        from ray import tune

        if self.limits:
            told = f"{self.limits[0].knob}: Tune knows no values that depend on others"
            raise ValueError(f"{told}; pass space=... to the searcher")

        for knob in self.knobs:
            if knob.when:
                raise ValueError(f"{knob.name}: Tune knows no conditional knobs; pass space=... to the searcher")
        return {k.name: tune.choice(list(k.values)) for k in self.knobs}

    @classmethod
    def from_tune(cls, param_space: Mapping[str, object]) -> Space:
        """A space from Tune's `{name: tune.choice(...)}`; constants become fixed knobs.

        Raises:
            ValueError: any other Tune domain, which is not finite.
        """
        from ray.tune.search.sample import Categorical, Domain

        knobs: dict[str, object] = {}
        for name, domain in param_space.items():
            if isinstance(domain, Categorical):
                knobs[name] = list(domain.categories)
            elif isinstance(domain, Domain):
                raise ValueError(f"{name}: {domain} is not finite; use tune.choice([...])")
            else:
                knobs[name] = domain
        return cls.from_dict(knobs)


def paper_space() -> Space:
    """Table 1 of "Efficient hyper-parameter search for LoRA via language-aided Bayesian optimization": 45,360 points.

    Alpha is searched as `alpha_ratio` = alpha / rank, so its range follows the rank.

    Example:
        >>> len(paper_space())
        45360
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
