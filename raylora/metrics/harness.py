"""A task of lm-evaluation-harness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raylora.errors import UserError
from raylora.metrics.base import Estimate, Metric, MetricRow, Value, check_count, check_flag
from raylora.metrics.core import harness


class Harness(Metric):
    """What lm-evaluation-harness says of the model on one of its tasks, or on a group of them.

    The harness asks its own questions, whatever the rows of the run are; the model of the run answers them where it is,
    with its adapter. `harness/NAME` in a spec is this metric with `task: NAME`. A YAML file of a task may name
    functions of files beside it: they run as the user, as all code of one's own does. Tasks that run generated code are
    refused.

    Args:
        task: its name in the harness.
        path: folder of YAML files that define tasks; without it, those that come with the harness, with their data from
            the hub.
        metric: which of its metrics counts, such as `acc_norm`; default: its first. All come as parts.
        limit: questions of each task; default: all.
        fewshot: examples before each question; default: the task's.
        chat: ask through the model's chat template.
        seed: of the examples.
    """

    name = "harness"
    summary = "a task of lm-evaluation-harness: harness/NAME, from local YAML and data or the hub"
    needs = "options"
    part = "task"
    of_rows = False

    def __init__(
        self,
        *,
        task: str,
        path: str | None = None,
        metric: str | None = None,
        limit: int | None = None,
        fewshot: int | None = None,
        chat: bool = False,
        seed: int = 1234,
    ) -> None:
        for option, value, least in (("limit", limit, 1), ("fewshot", fewshot, 0)):
            if value is not None:
                check_count(self.name, option, value, least)
        check_flag(self.name, "chat", chat)
        check_count(self.name, "seed", seed, 0)
        harness.check_installed(task)
        self.task, self.path, self.metric = task, harness.folder_of(path), metric
        self.options = {
            "limit": limit,
            "num_fewshot": fewshot,
            "apply_chat_template": chat,
            "fewshot_random_seed": seed,
        }
        self.key = f"harness/{task}"
        ends = harness.better_ends(harness.load_task(task, self.path)[1])
        if metric is not None and metric not in ends:
            raise UserError.at(
                "harness.metric",
                f"{metric!r} is no metric of {task}; choose one of {', '.join(ends)}",
                value=metric,
                allowed=list(ends),
            )
        self.chosen = metric or next(iter(ends), "")
        self.mode = "max" if ends.get(self.chosen, True) else "min"
        self.worst = 0.0 if self.mode == "max" else 1e5

    def measure(self, model: Any, tokenizer: Any, rows: Sequence[MetricRow]) -> list[Any]:
        """What the harness says, once for each row of the run, `(n,)`: a tuple `(name, value, error, ...)`."""
        found = harness.run(self.task, self.path, model, tokenizer, **self.options)
        told = _figures(found["results"].get(self.task, {}))
        return [tuple(part for name, pair in told.items() for part in (name, *pair))] * len(rows)

    def score(self, outputs: Sequence[Any], rows: Sequence[MetricRow]) -> list[Value]:
        return [tuple(output) for output in outputs]

    def summarise(self, values: Sequence[Value]) -> Estimate:
        if not values or not isinstance(values[0], tuple):
            return Estimate(math.nan, None)
        flat = list(values[0])
        parts = {
            str(name): Estimate(float(value), None if math.isnan(float(error)) else float(error))
            for name, value, error in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        }
        chosen = parts.get(self.chosen) or next(iter(parts.values()), Estimate(math.nan, None))
        return Estimate(chosen.value, chosen.error, {f"{self.key}.{name}": part for name, part in parts.items()})


def _figures(told: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Metric -> value and standard error, NaN where none is known; the first of several filters of a metric counts."""
    found: dict[str, tuple[float, float]] = {}
    for name, value in told.items():
        metric, comma, how = name.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, str):
            continue
        error = told.get(f"{metric}_stderr,{how}")
        known = error is not None and not isinstance(error, str)
        found.setdefault(metric, (float(value), float(error) if known else math.nan))  # type: ignore[arg-type]
    return found
