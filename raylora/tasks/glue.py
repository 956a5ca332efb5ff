"""GLUE (Wang et al., 2019, arXiv:1804.07461), verbalised as T5 does (Raffel et al., 2020, arXiv:1910.10683)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from raylora.data.conversation import BadTurn, Columns
from raylora.errors import UserError
from raylora.tasks.prompts import first, framed, row
from raylora.tasks.published import Published, PublishedTask
from raylora.tasks.scoring import Entry
from trainables.classifier import number_of

_HUB = "nyu-mll/glue"
_PAIR = ("sentence1", "sentence2")


@dataclass(frozen=True)
class _Set:
    """One of the nine: its texts by their published names, the words of its labels in order, and its metrics."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: Sequence[Entry]
    validation: str = "validation"


def _accuracy(*labels: str) -> dict[str, object]:
    return {"accuracy": {"labels": list(labels)}}


_ENTAILED = ("entailment", "not_entailment")
_SAME = ("not_equivalent", "equivalent")
_DUPLICATE = ("not_duplicate", "duplicate")
_NLI = ("entailment", "neutral", "contradiction")
_CORRECT = ("unacceptable", "acceptable")
_FEELING = ("negative", "positive")
_WNLI = ("not_entailment", "entailment")

SETS: dict[str, _Set] = {
    "cola": _Set(("sentence",), _CORRECT, ({"matthews": {"labels": list(_CORRECT)}}, _accuracy(*_CORRECT))),
    "sst2": _Set(("sentence",), _FEELING, (_accuracy(*_FEELING),)),
    "mrpc": _Set(_PAIR, _SAME, (_accuracy(*_SAME), {"f1": {"labels": list(_SAME), "positive": "equivalent"}})),
    "stsb": _Set(_PAIR, (), ("pearson", "spearman")),
    "qqp": _Set(
        ("question1", "question2"),
        _DUPLICATE,
        (_accuracy(*_DUPLICATE), {"f1": {"labels": list(_DUPLICATE), "positive": "duplicate"}}),
    ),
    "mnli": _Set(("premise", "hypothesis"), _NLI, (_accuracy(*_NLI),), "validation_matched"),
    "qnli": _Set(("question", "sentence"), _ENTAILED, (_accuracy(*_ENTAILED),)),
    "rte": _Set(_PAIR, _ENTAILED, (_accuracy(*_ENTAILED),)),
    "wnli": _Set(_PAIR, _WNLI, (_accuracy(*_WNLI),)),
}


def _row(raw: Mapping[str, Any], form: str, *, name: str) -> Columns:
    one = SETS[name]
    # Copies of the sets often call their texts sentence1 and sentence2, whatever these are.
    texts = {text: first(raw, text, f"sentence{place}") for place, text in enumerate(one.texts, 1)}
    prompt = " ".join([name, *(f"{text}: {value or ''}" for text, value in texts.items())])
    label = raw.get("label")
    if label is None or label == -1:
        raise BadTurn("no label")
    apart = [value or "" for value in texts.values()]
    if not one.labels:
        score = _score(label)
        # Answers in steps of 0.2, as T5 learns them; measured against the label as it is.
        return row(framed(form, prompt), f"{round(score * 5) / 5:.1f}", f"{score:g}", texts=apart)
    word = _word(label, one.labels)
    return row(framed(form, prompt), word, word, texts=apart)


def _score(label: object) -> float:
    try:
        return number_of(str(label))
    except ValueError:
        raise BadTurn(f"the label {str(label)[:40]!r} is no number") from None


def _word(label: object, labels: tuple[str, ...]) -> str:
    text = str(int(label) if isinstance(label, bool) else label).strip()
    if text in labels:
        return text
    try:
        place = int(float(text))
    except (ValueError, OverflowError):
        place = -1
    if not 0 <= place < len(labels):
        raise BadTurn(f"the label {text!r} is none of {', '.join(labels)}")
    return labels[place]


class GlueTask(PublishedTask):
    """One of the nine sets: texts with their names -> the word of the label.

    The published test labels are secret: the validation split is the test set, and trials are scored on rows of train.
    """

    name = "glue"
    summary = "GLUE's nine sets, verbalised: the label as a word"
    part = "set"
    longest = 8

    def __init__(self, set_name: str, **options: Any) -> None:
        if set_name not in SETS:
            raise UserError.at(
                "task.name",
                f"glue has no set {set_name!r}; choose one of {', '.join(SETS)}",
                value=f"glue/{set_name}",
                allowed=[f"glue/{name}" for name in SETS],
            )
        self.set_name, self.name = set_name, f"glue/{set_name}"
        one = SETS[set_name]
        self.default_metrics = one.metrics
        self.classes, self.numeric = one.labels, not one.labels
        self._published = Published(
            needs=tuple(dict.fromkeys([(*one.texts, "label"), (*_PAIR[: len(one.texts)], "label")])),
            make=partial(_row, name=set_name),
            hub={
                "train": {"path": _HUB, "name": set_name, "split": "train"},
                "test": {"path": _HUB, "name": set_name, "split": one.validation},
            },
        )
        super().__init__(**options)
        if options.get("path") and "validation" in self._open and not options.get("validation"):
            held_out = self._open.pop("validation")
            if not options.get("test") and not self.test_sets:
                self._open["test"] = held_out

    @classmethod
    def offers(cls) -> list[str]:
        return [f"glue/{name}" for name in SETS]

    def published(self) -> Published | None:
        return self._published
