"""Grids of really trained configurations: what a searcher is asked to search in a benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raylora.errors import UserError

if TYPE_CHECKING:
    from searchers.space import Space

VALUE, SPREAD = "accuracy", "accuracy_std"
KNOBS = ("variant", "rank", "alpha", "alpha_ratio", "batch_size", "learning_rate", "dropout")
# Grids that come with the package, by name.
BUNDLED = Path(__file__).parent


@dataclass(frozen=True)
class Grid:
    """A recorded grid.

    Attributes:
        name: of the file. space: the product of the values that its knobs take, with fixed ones.
        values: space index -> accuracy, larger is better; errors: its standard error where the file has one.
        samples: training samples of each run, where the file says so.
        origin: short name of where it was published, `own` for this project's; the file's name where it does not say.
        family, parameters: of the model that was trained, where the file says so; the parameters that a token meets.
    """

    name: str
    space: Space
    values: Mapping[int, float]
    errors: Mapping[int, float] = field(default_factory=dict)
    samples: int | None = None
    origin: str = ""
    family: str | None = None
    parameters: float | None = None

    @property
    def best(self) -> float:
        return max(self.values.values())

    @property
    def median(self) -> float:
        return float(np.median(list(self.values.values())))

    def nearest(self, index: int) -> int:
        """The recorded configuration nearest to `index` in the space's coordinates; itself where it is recorded."""
        if index in self.values:
            return index
        known = list(self.values)
        gaps = np.abs(self.space.features(known) - self.space.features([index])).sum(axis=1)
        return known[int(gaps.argmin())]


def load_grid(path: str | Path, field: str = "GRID") -> Grid:
    """Reads a CSV of knobs, `accuracy` and optionally `accuracy_std`, and the JSON of the same name if there is one.

    `fixed` of the JSON joins the space as fixed knobs, and gives the training samples (`train_samples` x `epochs`);
    `runs` is the number of runs behind each row (then the standard error is `accuracy_std` over its root).

    Args:
        field: what the file was given as, for messages.

    Raises:
        UserError: no such file, a missing column, a value that is no number, fewer than two different accuracies.
    """
    from searchers.space import Space

    file = Path(path).expanduser()
    if not file.is_file() and (BUNDLED / f"{path}.csv").is_file():
        file = BUNDLED / f"{path}.csv"
    try:
        table = pd.read_csv(file)
    except FileNotFoundError:
        known = ", ".join(bundled())
        raise UserError(
            f"{field}: {str(path)!r}: no such file; give a CSV, or one of {known}", field=field, value=str(path)
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{field}: {str(path)!r}: not a CSV that can be read ({error})", field=field, value=str(path)
        ) from None
    if VALUE not in table.columns:
        raise UserError(
            f"{field}: {str(path)!r}: has no column {VALUE!r}; the columns are {', '.join(table.columns)}",
            field=field,
            value=str(path),
        )
    names = [c for c in table.columns if not c.startswith(VALUE)]
    accuracy = pd.to_numeric(table[VALUE], errors="coerce")
    if not names or accuracy.isna().any() or accuracy.nunique() < 2:
        raise UserError(
            f"{field}: {str(path)!r}: needs knobs and, in {VALUE!r}, numbers that differ", field=field, value=str(path)
        )
    about = _about(file.with_suffix(".json"), field)
    fixed = about.get("fixed", {})
    knobs: dict[str, object] = {n: [_plain(v) for v in dict.fromkeys(table[n])] for n in names}
    knobs |= {n: v for n, v in fixed.items() if n in KNOBS and n not in knobs}
    space = Space.from_dict(knobs)
    runs = float(about.get("runs", 1))
    values: dict[int, list[float]] = {}
    errors: dict[int, list[float]] = {}
    for row, value in zip(table.to_dict("records"), accuracy, strict=True):
        index = space.encode({n: _plain(row[n]) for n in names})
        values.setdefault(index, []).append(float(value))
        if SPREAD in table.columns and np.isfinite(row[SPREAD]):
            errors.setdefault(index, []).append(float(row[SPREAD]) / runs**0.5)
    samples = fixed.get("train_samples")
    return Grid(
        file.stem,
        space,
        {i: float(np.mean(v)) for i, v in values.items()},
        {i: float(np.mean(e)) for i, e in errors.items()},
        None if samples is None else int(samples * fixed.get("epochs", 1)),
        str(about.get("origin", file.stem)),
        about.get("family"),
        about.get("active_parameters", about.get("parameters")),
    )


def bundled() -> list[str]:
    """Names of the grids that come with the package: `load_grid` takes them."""
    return sorted(str(file.relative_to(BUNDLED).with_suffix("")) for file in BUNDLED.rglob("*.csv"))


def _about(path: Path, field: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{field}: {str(path)!r}: not valid JSON ({error})", field=field) from None
    return found if isinstance(found, dict) else {}


def _plain(value: object) -> Any:
    return value.item() if hasattr(value, "item") else value
