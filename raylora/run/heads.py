"""The classification head of a run: its labels in the run's folder, and what others need to know of it."""

from __future__ import annotations

import json
from pathlib import Path

from raylora.errors import UserError
from raylora.run.folder import DATA
from raylora.spec import Spec
from trainables.classifier import ClassifierHead
from trainables.heads import LANGUAGE, Head


def labels_told(head: Head) -> dict[str, list[str]]:
    """What the run's folder keeps of a head, beside what it keeps of the data."""
    return {"labels": list(head.labels)} if isinstance(head, ClassifierHead) else {}


def head_of_run(run: Path, spec: Spec) -> Head:
    """The head that a run's adapter was trained with.

    Raises:
        UserError: the folder does not hold its labels.
    """
    if spec.task.head == "language":
        return LANGUAGE
    try:
        labels = json.loads((run / DATA).read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, KeyError):
        raise UserError.at(
            "RUN_DIR", f"{run / DATA} has no labels; go on with `raylora resume {run}`", value=str(run)
        ) from None
    return ClassifierHead(tuple(labels), spec.seed)
