"""What is kept of a measurement: its folder, its recipes, and the journal of each part of the rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raylora.errors import UserError
from raylora.run.folder import settled
from raylora.run.stored import folder_of
from raylora.spec import Spec
from trainables.files import replace_text
from trainables.journal import Ending, Journal, Knobs, trial_key

# Locked for as long as a process works on the measurement. No run's mark: the folder is none.
MARK = ".proxy"
_RECORD = "proxy.json"

# What trials on the same rows have in common: another measurement where any of it differs.
_TRAIN = ("samples", "epochs", "weight_decay", "warmup_ratio", "schedule", "max_grad_norm", "match_parameters")


@dataclass(frozen=True)
class Part:
    """A part of the train rows.

    Attributes:
        select: who chose it, one of `selectors.SELECTORS`.
        fraction: of the rows, in (0, 1].
    """

    select: str
    fraction: float

    @property
    def name(self) -> str:
        """Of its folder below the measurement's."""
        return f"{self.select}-{self.fraction:g}"


@dataclass(frozen=True)
class Record:
    """What a measurement settled when it first began.

    Attributes:
        metric, mode: what recipes are scored by, and its better end.
        rows: train rows in all.
        possible: configurations that the model can have of the spec's space.
        recipes: in the order in which they were drawn.
        sizes: rows of each part that was begun, by its name, and `samples`, what a recipe is trained on there.
    """

    metric: str
    mode: str
    rows: int
    possible: int
    recipes: Sequence[Knobs]
    sizes: Mapping[str, Mapping[str, int]]


def measurement_folder(spec: Spec) -> Path:
    """Where the measurement of a spec lies: the same for the same model, task, space, training and seed.

    `task.proxy`, the search and the resources are no part of it.
    """
    about = settled(spec).model_dump(
        mode="json",
        exclude_defaults=True,
        include={"model": True, "dtype": True, "seed": True, "task": True, "space": True, "train": set(_TRAIN)},
    )
    about["task"].pop("proxy", None)
    about["objective"] = spec.search.objective
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    return folder_of(spec, "proxy") / f"proxy-{spec.name or spec.task.name.replace('/', '-')}-{digest}"


def read_record(folder: Path) -> Record | None:
    """What the measurement in a folder settled; None before it did.

    Raises:
        UserError: the file is not what was written.
    """
    file = folder / _RECORD
    if not file.is_file():
        return None
    try:
        return Record(**json.loads(file.read_text()))
    except (ValueError, TypeError):
        raise UserError.at("storage_path", f"{file} is no record of `raylora proxy`; remove {folder}") from None


def write_record(folder: Path, record: Record) -> None:
    """In one step."""
    replace_text(folder / _RECORD, json.dumps(asdict(record), indent=1) + "\n")


def endings(folder: Path, part: Part, recipes: Sequence[Knobs]) -> list[Ending | None]:
    """How each recipe ended on a part; None where it has not yet."""
    concluded = Journal(folder / part.name).concluded()
    return [concluded.get(trial_key(recipe)) for recipe in recipes]


def seconds(folder: Path, part: Part, recipes: Sequence[Knobs]) -> float:
    """What training and scoring them took, as far as their reports tell."""
    keys = {trial_key(recipe) for recipe in recipes}
    rows: list[dict[str, Any]] = Journal(folder / part.name).rows()
    told = [row for row in rows if row["event"] in ("report", "finish") and row["key"] in keys]
    return sum((row.get("train_s") or 0.0) + (row.get("eval_s") or 0.0) for row in told)
