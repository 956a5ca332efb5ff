"""Metrics tried before a run begins: what they refuse, or a function of the user's own does wrong, is told at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from raylora.data.sources import FileSource
from raylora.metrics.base import MetricRow
from raylora.tasks.scoring import Scoring

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from raylora.tasks import Task
    from trainables.rows import Rows

_ROWS = 200


def rehearse(scoring: Scoring, sets: Mapping[str, Sequence[MetricRow]], hosts: Sequence[ActorHandle]) -> None:
    """Has the metrics mark the references of these rows, in a process that will score or in one like it.

    Args:
        sets: split -> its first rows.
        hosts: running ModelHosts, the first of which does it; without one, a Ray task does.

    Raises:
        UserError: what a metric lacks of the rows, or does wrong.
    """
    import ray

    if hosts:
        ray.get(hosts[0].rehearse.remote(sets))
    else:
        ray.get(ray.remote(_rehearse).options(num_cpus=0).remote(scoring, sets))


def _rehearse(scoring: Scoring, sets: Mapping[str, Sequence[MetricRow]]) -> None:
    for split, rows in sets.items():
        scoring.rehearse(rows, split)


def first_rows(sets: Mapping[str, Rows]) -> dict[str, Sequence[MetricRow]]:
    """The first rows of each split."""
    return {split: list(islice(iter(rows), _ROWS)) for split, rows in sets.items()}


def first_test_rows(task: Task) -> dict[str, Sequence[MetricRow]]:
    """The first rows of each test set in local files; others are not read for this."""
    sources = {split: source for split, source in task.splits().items() if split.partition(".")[0] == "test"}
    return {split: source.check() for split, source in sources.items() if isinstance(source, FileSource)}
