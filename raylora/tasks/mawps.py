"""MAWPS (Koncel-Kedziorski et al., 2016) and its like: arithmetic word problems with one number as the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from raylora.data.conversation import BadTurn, Columns
from raylora.tasks.prompts import first, framed, row
from raylora.tasks.published import Published, PublishedTask

_PLACE = re.compile(r"\bN_(\d+)\b")


def _row(raw: Mapping[str, object], form: str) -> Columns:
    answer = first(raw, "answer", "Answer", "final_ans", "label")
    if raw.get("answer") is None and answer is not None:
        answer = _short(answer)
    return row(framed(form, _question(raw)), first(raw, "output") or answer, answer)


def _question(raw: Mapping[str, object]) -> str | None:
    """The problem: the hub's copy of MAWPS keeps its numbers apart (`N_00`), and SVAMP the story from the question."""
    question, body = first(raw, "question", "instruction", "Question"), first(raw, "Body")
    if question is None:
        return None
    numbers = re.findall(r"[^\s,\[\]]+", first(raw, "Numbers") or "")
    question = _PLACE.sub(partial(_number, numbers=numbers), question)
    return question if not body or body.strip() in question or numbers else f"{body.strip()} {question}"


def _number(found: re.Match[str], numbers: list[str]) -> str:
    place = int(found.group(1))
    if place >= len(numbers):
        raise BadTurn(f"no number for {found.group()}")
    return _short(numbers[place])


def _short(number: str) -> str:
    """`8.0` is written `8`."""
    return number.removesuffix(".0")


class MawpsTask(PublishedTask):
    """Word problem -> its number; AddSub, MultiArith, SingleEq and SVAMP in the same form or their own."""

    name = "mawps"
    summary = "arithmetic word problems (MAWPS and its like); right where the final number is"
    data = Published(
        needs=(("question", "answer"), ("instruction", "answer"), ("Question", "Answer"), ("question", "final_ans")),
        make=_row,
        hub={"train": "mwpt5/MAWPS"},
    )
    longest = 64
    default_metrics = ("number",)
