"""Alpaca (Taori et al., 2023) and data of its form: instructions, measured by the overlap with the reference."""

from __future__ import annotations

from collections.abc import Mapping

from raylora.data.conversation import Columns
from raylora.tasks.prompts import first, framed, row
from raylora.tasks.published import Published, PublishedTask


def _row(raw: Mapping[str, object], form: str) -> Columns:
    return row(framed(form, first(raw, "instruction"), first(raw, "input")), first(raw, "output"))


class AlpacaTask(PublishedTask):
    """`instruction`, `input` where there is one, and `output`; ROUGE-L is optimised, ROUGE-1 and BLEU-4 are shown."""

    name = "alpaca"
    summary = "instructions and free answers (Alpaca's form), by ROUGE and BLEU"
    data = Published(needs=(("instruction", "output"),), make=_row, hub={"train": "tatsu-lab/alpaca"})
    longest = 128
    default_metrics = ("rouge", "bleu")
