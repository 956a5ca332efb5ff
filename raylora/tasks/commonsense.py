"""Eight commonsense sets in the form of LLM-Adapters (Hu et al., 2023, arXiv:2304.01933)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylora.data.conversation import BadTurn, Columns
from raylora.metrics.base import check_choice
from raylora.tasks.prompts import first, framed, row
from raylora.tasks.published import Published, PublishedTask

_FORMAT = re.compile(r"Answer format:\s*(\S+)\s*$")


def _row(raw: Mapping[str, object], form: str) -> Columns:
    prompt, answer = first(raw, "instruction", "prompt"), first(raw, "answer")
    listed = _FORMAT.search(prompt or "")
    if listed is None:
        raise BadTurn("no line `Answer format: ...` at its end")
    choices = listed.group(1).split("/")
    if answer not in choices:
        raise BadTurn(f"the answer {answer!r} is none of {'/'.join(choices)}")
    response = first(raw, "output", "response")
    return row(framed(form, prompt, first(raw, "input")), response, answer, choices=choices)


def _set(*folders: str) -> Published:
    return Published(needs=_NEEDS, make=_row, hub={}, folders=folders)


_NEEDS = (("instruction", "output", "answer"), ("prompt", "response", "answer"))


class CommonsenseTask(PublishedTask):
    """Train on the union, test on each; the figure of a run is the mean over the test sets.

    Args:
        how: `text`, by the answer that is generated, as published; `likelihood`, by the most likely of the answers.
    """

    name = "commonsense"
    summary = "eight commonsense sets in LLM-Adapters' form, by generated answer or by likelihood"
    data = Published(needs=_NEEDS, make=_row, hub={}, folders=("commonsense_170k", "commonsense_15k"))
    sets = {
        "boolq": _set("boolq"),
        "piqa": _set("piqa"),
        "siqa": _set("siqa", "social_i_qa"),
        "hellaswag": _set("hellaswag"),
        "winogrande": _set("winogrande"),
        "arc_easy": _set("arc_easy", "ARC-Easy"),
        "arc_challenge": _set("arc_challenge", "ARC-Challenge"),
        "openbookqa": _set("openbookqa"),
    }
    longest = 32

    def __init__(self, *, how: str = "text", **options: Any) -> None:
        check_choice("task.options", "how", how, ("text", "likelihood"))
        super().__init__(**options)
        likelihood = {"how": "likelihood", "template": "the correct answer is {text}"}
        published = {"several": "first"}
        self.default_metrics = [{"choice": likelihood if how == "likelihood" else published}]

    def _train(self) -> Any:
        """The joined file where there is one, else the train files of the sets."""
        if self.path is None or not self._is_local():
            return super()._train()
        assert self.data is not None
        joined = self.data.below(self.path)
        if joined is not None:
            return joined
        places = [place for one in self.sets.values() if (place := one.below(self.path)) is not None]
        return [place for place in places if Path(place).is_dir()] or self.path
