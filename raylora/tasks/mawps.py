"""MAWPS (Koncel-Kedziorski et al., 2016) and its like: arithmetic word problems with one number as the answer."""

from __future__ import annotations

from collections.abc import Mapping

from raylora.data.conversation import Columns
from raylora.tasks.prompts import first, framed, row
from raylora.tasks.published import Published, PublishedTask


def _row(raw: Mapping[str, object], form: str) -> Columns:
    answer = first(raw, "answer", "Answer", "label")
    return row(framed(form, first(raw, "question", "instruction", "Question")), first(raw, "output") or answer, answer)


class MawpsTask(PublishedTask):
    """Word problem -> its number; AddSub, MultiArith, SingleEq, SVAMP and AQuA's numbers in the same form."""

    name = "mawps"
    summary = "arithmetic word problems (MAWPS and its like); right where the final number is"
    data = Published(
        needs=(("question", "answer"), ("instruction", "answer"), ("Question", "Answer")),
        make=_row,
        hub={"train": "mwpt5/MAWPS"},
    )
    longest = 64
    default_metrics = ("number",)
