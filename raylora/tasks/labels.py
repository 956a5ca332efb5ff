"""Labels instead of text: what a task is with a classification head (`task.head`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Literal

from raylora.errors import UserError
from raylora.metrics import METRICS, Metric
from raylora.metrics.core.text import normalise
from raylora.metrics.f1 import F1
from raylora.spec.text import choose
from raylora.tasks.scoring import Entry
from trainables.classifier import ClassifierHead, label_of, label_order, number_of

HeadKind = Literal["language", "classifier", "regression"]
MOST_CLASSES = 1000
_SHOWN = 5


def is_regression(kind: str, numeric: bool) -> bool:
    """Whether the head gives a number: asked for, or the published answers are numbers (STS-B)."""
    return kind == "regression" or numeric


def default_metrics(entries: Sequence[Entry], regression: bool) -> Sequence[Entry]:
    """A task's own metrics, where a head's answers have what they need, else those of labels or of numbers."""
    kind = "numbers" if regression else "classes"
    named = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    if named and all(name in METRICS and kind in METRICS[name].marks for name in named):
        return entries
    return ["pearson", "spearman"] if regression else ["accuracy"]


def check_metrics(metrics: Iterable[Metric], regression: bool) -> None:
    """Refuses metrics that need more than a head's answers.

    Raises:
        UserError: one of them.
    """
    kind = "numbers" if regression else "classes"
    allowed = [name for name, cls in METRICS.classes().items() if kind in cls.marks]
    for metric in metrics:
        if kind not in metric.marks:
            raise UserError.at(
                "task.metrics",
                f"{metric.name or 'the score of this task'!r} cannot mark {kind}, which is all that task.head gives; "
                f"choose among {', '.join(allowed)}",
                value=metric.name,
                allowed=allowed,
            )


def check_positive_label(metrics: Iterable[Metric], labels: Sequence[str]) -> None:
    """Refuses a metric of one label that the head cannot give: it would be 0 for ever.

    Raises:
        UserError: one of them.
    """
    known = {normalise(label) for label in labels}
    for metric in metrics:
        if isinstance(metric, F1) and metric.positive is not None and metric.positive not in known:
            raise UserError.at(
                "task.metrics.f1.positive",
                f"{metric.positive!r} is none of the labels of train; {choose(metric.positive, labels)}",
                value=metric.positive,
                allowed=list(labels),
            )


def check_numbers(split: str, answers: Iterable[str | None], kind: str = "regression") -> None:
    """Refuses answers of a regression that are no numbers.

    Raises:
        UserError: one of them.
    """
    for answer in answers:
        try:
            number_of(answer or "")
        except ValueError:
            raise UserError.at(
                "task.head",
                f"{kind}, but a {split} row has the answer {(answer or '')[:40]!r}, which is no number; give numbers, "
                "or choose classifier",
                value=kind,
            ) from None


def make_head(
    kind: str, answers: Iterable[str | None], *, labels: Sequence[str] = (), numeric: bool = False, seed: int = 0
) -> ClassifierHead:
    """The head for these answers.

    Args:
        kind: `classifier` or `regression`.
        answers: of the rows that are trained on.
        labels: those that the task publishes, in their order; without any, the different answers, sorted.
        numeric: whether the task's answers are numbers.

    Raises:
        UserError: the answers are no labels, or no numbers.
    """
    if is_regression(kind, numeric):
        return _regression(kind, answers, labels, seed)
    if labels:
        return ClassifierHead(tuple(labels), seed)
    found: set[str] = set()
    rows = 0
    for answer in answers:
        rows += 1
        found.add(label_of(answer or ""))
        if len(found) > MOST_CLASSES:
            break
    named = sorted(found, key=label_order)
    if len(named) < 2 or len(named) > MOST_CLASSES or (len(named) == rows and rows > 2):
        count = f"more than {MOST_CLASSES}" if len(named) > MOST_CLASSES else str(len(named))
        shown = ", ".join(repr(name[:40]) for name in named[:_SHOWN])
        raise UserError.at(
            "task.head",
            f"classifier, but the {rows} train rows have {count} different answer{'s' * (len(named) != 1)} "
            f"({shown}{', ...' * (len(named) > _SHOWN)}); give rows with two labels or more, each of several rows, or "
            "name the label with task.columns",
            value="classifier",
        )
    return ClassifierHead(tuple(named), seed)


def _regression(kind: str, answers: Iterable[str | None], labels: Sequence[str], seed: int) -> ClassifierHead:
    if labels:
        raise UserError.at(
            "task.head", f"regression, but the answers are {', '.join(labels)}; choose classifier", value=kind
        )
    check_numbers("train", answers, kind)
    return ClassifierHead((), seed)


def first_answers(rows: Any, most: int = 200_000) -> Iterable[str | None]:
    """The answers of the first rows of a tokenised split, without their tokens."""
    return (row["answer"] for row in islice(iter(rows), most))
