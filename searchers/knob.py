"""One hyperparameter: its values, their kind and scale, and when it applies."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["ordinal", "categorical"]


def is_number(value: object) -> bool:
    """Whether `value` is a number of Python's or numpy's; True and False are none."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)


def canonical(value: Any) -> Any:
    """The same JSON value for every spelling of a number: 8, 8.0 and numpy's 8 are one value; True stays True."""
    if isinstance(value, np.bool_):
        return bool(value)
    if is_number(value):
        # 12 significant digits: enough to tell knob values apart, few enough to forgive 0.1 + 0.2.
        return f"{float(value):.12g}"
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    return f"s:{value}"


def _token(value: object) -> str:
    return json.dumps(canonical(value), sort_keys=True)


@dataclass(frozen=True)
class Knob:
    """One hyperparameter and the values it may take.

    Args:
        name: key in the configuration dict.
        values: non-empty, unique. Ordinal values are numbers and are put in ascending order.
        kind: `ordinal` (order carries meaning) or `categorical`.
        log: whether distances between ordinal values are measured on a logarithmic scale (needs positive values).
        when: `{name of an earlier knob: its values}` for which this knob is active, all of them at once; empty: always.
            Kept as a tuple of pairs.

    Raises:
        ValueError: empty or repeated values, a non-number in an ordinal knob, a log scale over values <= 0, a condition
            without values.

    Example:
        >>> knob = Knob("rank", (16, 4, 8), log=True)
        >>> knob.values, knob.coordinates()[:, 0].round(3).tolist()
        ((4, 8, 16), [0.0, 0.5, 1.0])
    """

    name: str
    values: tuple[Any, ...]
    kind: Kind = "ordinal"
    log: bool = False
    when: Any = ()

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
                if not is_number(value) or not math.isfinite(float(value)):  # type: ignore[arg-type]
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
        pairs = self.when.items() if isinstance(self.when, Mapping) else self.when
        when = tuple((name, tuple(wanted)) for name, wanted in pairs)
        for name, wanted in when:
            if not wanted:
                raise ValueError(f"{self.name}: when {name} has no values; give at least one, or leave the knob out")
        object.__setattr__(self, "when", when)

    def __len__(self) -> int:
        return len(self.values)

    def position(self, value: object) -> int:
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


def infer_knob(name: str, given: object, when: Mapping[str, Iterable[object]]) -> Knob:
    """A knob from a value or values, as `Space.from_dict` describes it."""
    values = tuple(given) if isinstance(given, list | tuple | range | np.ndarray) else (given,)
    if not values or not all(is_number(v) for v in values):
        return Knob(name, values, "categorical", when=when)
    return Knob(name, values, "ordinal", log=_evenly_spaced_in_log(values), when=when)


def _evenly_spaced_in_log(values: tuple[object, ...]) -> bool:
    x = np.sort(np.array(values, dtype=float))
    if len(x) < 2 or x[0] <= 0:
        return False
    if len(x) == 2:
        return bool(x[1] / x[0] >= 4)
    linear, logarithmic = np.diff(x), np.diff(np.log(x))
    return bool(np.std(logarithmic) / np.mean(logarithmic) < np.std(linear) / np.mean(linear))
