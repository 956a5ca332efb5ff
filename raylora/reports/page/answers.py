"""Answers side by side: the rows of test, and the difference between the recipes on them."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError
from raylora.reports.page.facts import RunFacts, number
from raylora.run.better import Difference, differences_on_test
from raylora.run.predictions import read_predictions

if TYPE_CHECKING:
    import pandas as pd

# So that the page stays below 3 MB whatever the rows are: most rows and characters of a run's table, and of a cell.
MOST_ROWS = 300
MOST_TEXT = 500_000
LONGEST = 1_500


@dataclass(frozen=True)
class Answers:
    """Rows of test on which the models differ.

    Attributes:
        models: those that answered, as people call them. rows: `{"row", "prompt", "answer", "kind", model: (text,
            score)}`. total, differing: rows of test, and those where answers or scores differ.
    """

    models: list[str]
    rows: list[dict[str, Any]]
    total: int
    differing: int


def read_answers(run: RunFacts) -> dict[str, pd.DataFrame]:
    """Test set -> the answers to it of the first seed."""
    files = [path.stem for path in (run.folder / "final").glob("*/test*.parquet")]
    # Several workers write a file each, numbered.
    splits = sorted({re.sub(r"-\d+$", "", stem) for stem in files})
    found = {}
    for split in splits:
        with contextlib.suppress(UserError, OSError, ValueError, KeyError):  # torn by a kill while it was written
            found[split] = read_predictions(run.folder, split)
    return found


def differing(table: pd.DataFrame) -> Answers:
    """Rows where the models' answers differ, those first in which the found recipe changed the score."""
    models = [name for name in ("base", "default", "found") if name in table]
    other = [name for name in ("default", "base") if name in table]
    found = []
    for row in table.to_dict("records"):
        given = [str(row[name]).strip() for name in models]
        scores = [number(row.get(f"{name}_score")) for name in models]
        if len(set(given)) < 2 and len(set(scores)) < 2:
            continue
        mine = number(row.get("found_score"))
        before = number(row.get(f"{other[0]}_score")) if other else None
        step = 0.0 if mine is None or before is None else mine - before
        kind = "won" if step > 0 else "lost" if step < 0 else "same score"
        cells = {name: (_cut(str(row[name])), score) for name, score in zip(models, scores, strict=True)}
        found.append(
            {"row": row["row"], "prompt": _cut(str(row["prompt"])), "answer": _cut(str(row["answer"])), "kind": kind}
            | {"models": cells}
        )
    order = {"lost": 0, "won": 1, "same score": 2}
    found.sort(key=lambda row: (order[row["kind"]], row["row"]))
    kept, text = [], 0
    for row in found[:MOST_ROWS]:
        text += len(row["prompt"]) + len(row["answer"]) + sum(len(cell[0]) for cell in row["models"].values())
        if text > MOST_TEXT:
            break
        kept.append(row)
    return Answers(models, kept, len(table), len(found))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"


def differences(run: RunFacts, table: pd.DataFrame | None) -> list[Difference]:
    """The found recipe against the default one and the base, as far as the summary has them."""
    return differences_on_test(run.summary or {}, run.mode, run.spec.final.seeds, table)
