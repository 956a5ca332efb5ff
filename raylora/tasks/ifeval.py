"""IFEval (Zhou et al., 2023, arXiv:2311.07911): prompts with instructions that a program can check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.data.conversation import Columns
from raylora.tasks.prompts import as_list, first, framed, row
from raylora.tasks.published import Published, PublishedTask

# There are no reference answers; a row must have one to be read.
_NO_REFERENCE = "-"


def _row(raw: Mapping[str, Any], form: str) -> Columns:
    return row(
        framed(form, first(raw, "prompt")),
        _NO_REFERENCE,
        instruction_id_list=as_list(raw, "instruction_id_list"),
        kwargs=as_list(raw, "kwargs"),
    )


class IfEvalTask(PublishedTask):
    """Measured on IFEval's 541 prompts; trained on rows of your own (`task.train`), by whose loss trials are scored."""

    name = "ifeval"
    summary = "your own instructions, measured on IFEval"
    sets = {
        "ifeval": Published(
            needs=(("prompt", "instruction_id_list", "kwargs"),),
            make=_row,
            hub={"test": {"path": "google/IFEval", "split": "train"}},
            folders=("ifeval", "IFEval"),
        )
    }
    longest = 512
    default_metrics = ("loss", {"ifeval": {"ifeval": {}}})
    tested_only = frozenset({"ifeval"})
