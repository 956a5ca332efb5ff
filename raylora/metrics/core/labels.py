"""Labels in generated text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from raylora.errors import UserError
from raylora.metrics.base import MetricRow, check_lengths
from raylora.metrics.core.text import normalise

NO_LABEL = ""


def check_labels(metric: str, labels: Sequence[str] | None) -> tuple[str, ...] | None:
    """Normalised labels; UserError unless they are at least two different ones, or None."""
    if labels is None:
        return None
    named = [normalise(str(label)) for label in labels] if isinstance(labels, list | tuple) else []
    if len(set(named)) < 2 or len(set(named)) != len(named):
        raise UserError.at(
            f"{metric}.labels", f"{labels!r} is not allowed; give a list of at least two different labels", value=labels
        )
    return tuple(named)


def read_labels(
    outputs: Sequence[str], rows: Sequence[MetricRow], labels: tuple[str, ...] | None
) -> list[tuple[float | str, ...]]:
    """`(answer, predicted)` of each row, both normalised, `(n, 2)`.

    Without `labels`, a completion is its own label, and one that equals the reference response means its answer. With
    them it means the one that it names as whole words; none or several of them are no label.
    """
    check_lengths(outputs, rows)
    pairs: list[tuple[float | str, ...]] = []
    for text, row in zip(outputs, rows, strict=True):
        wanted, found = normalise(row["answer"]), normalise(text)
        if found == normalise(row["response"]):
            found = wanted
        elif labels is not None and found not in labels:
            found = _named(found, labels)
        pairs.append((wanted, found))
    return pairs


def _named(text: str, labels: tuple[str, ...]) -> str:
    # The longest first: "not entailment" is no "entailment".
    ordered = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True) if label)
    found = set(re.findall(rf"(?<!\w)(?:{ordered})(?!\w)", text))
    return found.pop() if len(found) == 1 else NO_LABEL


def encode(pairs: Sequence[tuple[str, str]], order: Sequence[str]) -> np.ndarray:
    """`pairs` of labels as their places in `order`, `(n, 2)`."""
    places = {label: place for place, label in enumerate(order)}
    return np.asarray([[places[wanted], places[found]] for wanted, found in pairs], dtype=int)


def confusion(table: np.ndarray, count: int) -> np.ndarray:
    """How often each label was predicted for each answer, `(answers, predicted)`, from a table of places `(n, 2)`."""
    return np.bincount(table[:, 0] * count + table[:, 1], minlength=count * count).reshape(count, count)


def label_order(pairs: Sequence[tuple[str, str]], more: Iterable[str] = ()) -> list[str]:
    """Every label among `pairs` and `more`, sorted."""
    return sorted({label for pair in pairs for label in pair} | set(more))
