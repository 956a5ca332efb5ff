"""MetaMathQA (Yu et al., 2023, arXiv:2309.12284): trained on its rephrased problems, measured on GSM8K and MATH."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.data.conversation import Columns
from raylora.tasks.math import MATH
from raylora.tasks.prompts import first, framed, row
from raylora.tasks.published import Published, PublishedTask

_MARK = "The answer is:"


def _row(raw: Mapping[str, object], form: str) -> Columns:
    response = first(raw, "response", "output")
    answer = response.rpartition(_MARK)[2].strip() if response and _MARK in response else None
    return row(framed(form, first(raw, "query", "instruction")), response, answer)


def _gsm8k_row(raw: Mapping[str, object], form: str) -> Columns:
    solution = first(raw, "answer")
    return row(framed(form, first(raw, "question")), solution, (solution or "").rpartition("####")[2].strip())


class MetaMathTask(PublishedTask):
    """Train: `query` and `response` of MetaMathQA. Test: `gsm8k` by the final number, `math` by meaning."""

    name = "metamath"
    summary = "MetaMathQA, measured on gsm8k and math"
    data = Published(
        needs=(("query", "response"), ("instruction", "output")),
        make=_row,
        hub={"train": "meta-math/MetaMathQA"},
        folders=("metamath", "MetaMathQA", "MetaMathQA-395K"),
    )
    sets = {
        "gsm8k": Published(
            needs=(("question", "answer"),),
            make=_gsm8k_row,
            hub={"test": {"path": "openai/gsm8k", "name": "main"}},
            folders=("gsm8k",),
        ),
        "math": MATH,
    }
    longest = 512

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        metrics = {"gsm8k": "number", "math": "math"}
        self.default_metrics = [{name: metrics[name]} for name in self.test_sets]
