"""MATH (Hendrycks et al., 2021, arXiv:2103.03874): competition problems with worked solutions."""

from __future__ import annotations

from collections.abc import Mapping

from raylora.data.conversation import Columns
from raylora.tasks.prompts import first, framed, row
from raylora.tasks.published import Published, PublishedTask

_SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip
_HUB = "EleutherAI/hendrycks_math"


def math_row(raw: Mapping[str, object], form: str) -> Columns:
    """A problem, its solution, and the boxed answer; level and subject are groups of the results."""
    solution = first(raw, "solution", "response")
    groups = {"level": first(raw, "level"), "subject": first(raw, "subject", "type")}
    answer = first(raw, "answer")
    return row(
        framed(form, first(raw, "problem", "prompt", "question")),
        solution,
        answer if answer and answer.strip() else solution,
        groups={name: value for name, value in groups.items() if value is not None} or None,
    )


MATH = Published(
    needs=(("problem", "solution"), ("prompt", "response")),
    make=math_row,
    hub={split: [{"path": _HUB, "name": name} for name in _SUBJECTS] for split in ("train", "test")},
    folders=("math", "MATH"),
)


class MathTask(PublishedTask):
    """Competition problem -> worked solution that ends in a boxed answer; compared by meaning, by level and subject."""

    name = "math"
    summary = "competition mathematics (MATH); right where the final answer means the same"
    data = MATH
    longest = 512
    default_metrics = ("math",)
