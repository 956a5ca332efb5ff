"""IFEval (Zhou et al., 2023, arXiv:2311.07911): prompts with instructions that a program can check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raylora.data.conversation import Columns
from raylora.tasks.prompts import first, framed, row
from raylora.tasks.published import Published, PublishedTask

# There are no reference answers; a row must have one to be read.
_NO_REFERENCE = "-"


def _row(raw: Mapping[str, Any], form: str) -> Columns:
    kwargs = raw.get("kwargs")
    return row(
        framed(form, first(raw, "prompt")),
        _NO_REFERENCE,
        instruction_id_list=list(raw.get("instruction_id_list") or []),
        kwargs=json.loads(kwargs) if isinstance(kwargs, str) else list(kwargs or []),
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
