"""Metrics by name.

A new one is one file here, named like the metric; another package adds its own through an entry point of
`raylora.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping

from raylora.errors import UserError
from raylora.metrics.base import Estimate, Metric, OptionScores, RowLoss, build
from trainables.registry import PluginError, Registry

__all__ = ["METRICS", "Estimate", "Metric", "OptionScores", "RowLoss", "available", "is_metric", "make_metric"]

METRICS: Registry[Metric] = Registry(
    "raylora.metrics", "raylora.metrics", "raylora.metrics.base:Metric", apart=("base", "statistics", "testing")
)


def available() -> dict[str, str]:
    """Name of every metric, and what it measures in a line, sorted by name."""
    return {name: cls.summary for name, cls in METRICS.classes().items()}


def make_metric(name: str, options: Mapping[str, object] | None = None, *, where: str = "task.metrics") -> Metric:
    """The metric called `name` with its options.

    `pass@k` is `pass_at_k`; `harness/NAME` is `harness` with its option `task`.

    Args:
        options: keyword arguments of the metric's class.
        where: the field that names it, for errors.

    Raises:
        UserError: unknown name or option, an option that is missing, a value or a plug-in that cannot be used.
    """
    name, part = _parts(name)
    if name not in METRICS:
        raise UserError.at(
            where, f"unknown metric {name!r}; choose one of {', '.join(METRICS)}", value=name, allowed=METRICS.names()
        )
    try:
        cls = METRICS[name]
    except PluginError as error:
        raise UserError.at(where, str(error), value=name) from error
    if bool(part) and not cls.part:
        raise UserError.at(where, f"{name} takes nothing behind a slash; write {name}", value=f"{name}/{part}")
    return build(cls, {**(options or {}), **({cls.part: part} if part else {})}, where)


def is_metric(name: str) -> bool:
    """Whether a spec's name is that of a metric."""
    return _parts(name)[0] in METRICS


def _parts(name: str) -> tuple[str, str]:
    """The registered name, and what stands behind the slash."""
    family, _, part = name.replace("@", "_at_").partition("/")
    return family, part
