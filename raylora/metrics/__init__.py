"""Metrics by name.

A new one is one file here, named like the metric; another package adds its own through an entry point of
`raylora.metrics`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from raylora.errors import UserError
from raylora.metrics.base import Estimate, Metric, OptionScores, RowLoss, build
from raylora.spec.text import meant
from trainables.registry import PluginError, Registry

__all__ = [
    "METRICS",
    "Estimate",
    "Metric",
    "OptionScores",
    "RowLoss",
    "available",
    "is_metric",
    "main_option",
    "make_metric",
]

METRICS: Registry[Metric] = Registry(
    "raylora.metrics", "raylora.metrics", "raylora.metrics.base:Metric", apart=("base", "statistics", "testing")
)


def available() -> dict[str, str]:
    """Name of every metric, and what it measures in a line, sorted by name."""
    return {name: cls.summary for name, cls in METRICS.classes().items()}


def make_metric(name: str, options: Mapping[str, object] | None = None, *, where: str = "task.metrics") -> Metric:
    """The metric called `name` with its options.

    `pass@k` is `pass_at_k`, `pass@10` that with its option `k`; `harness/NAME` is `harness` with its option `task`.

    Args:
        options: keyword arguments of the metric's class.
        where: the field that names it, for errors.

    Raises:
        UserError: unknown name or option, an option that is missing, a value or a plug-in that cannot be used.
    """
    name, part, count = _parts(name)
    if name not in METRICS:
        told = f"unknown metric {name!r}; {meant(name, METRICS)}choose one of {', '.join(METRICS)}"
        raise UserError.at(where, told, value=name, allowed=METRICS.names())
    try:
        cls = METRICS[name]
    except PluginError as error:
        raise UserError.at(where, str(error), value=name) from error
    if bool(part) and not cls.part:
        raise UserError.at(where, f"{name} takes nothing behind a slash; write {name}", value=f"{name}/{part}")
    said: dict[str, object] = {cls.part: part} if part else {"k": count} if count else {}
    return build(cls, {**(options or {}), **said}, where)


def is_metric(name: str) -> bool:
    """Whether a spec's name is that of a metric."""
    return _parts(name)[0] in METRICS


def main_option(name: str) -> str:
    """The option of a metric that a text in place of its options is; empty where there is none."""
    family = _parts(name)[0]
    try:
        return METRICS[family].main if family in METRICS else ""
    except PluginError:  # told when the metric is made
        return ""


def _parts(name: str) -> tuple[str, str, int | None]:
    """The registered name, what stands behind the slash, and the number of `pass@10`."""
    counted = re.fullmatch(r"pass@([1-9]\d*)", name)
    if counted:
        return "pass_at_k", "", int(counted.group(1))
    family, _, part = name.replace("@", "_at_").partition("/")
    return family, part, None
