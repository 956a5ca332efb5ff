"""Libraries that are not there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from raylora.errors import UserError


def library(module: str, metric: str) -> Any:
    """The imported `module`, which `metric` needs; UserError with the remedy where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise UserError.at(
            "task.metrics",
            f"{metric} needs the package {package}; install it with: pip install raylora[metrics]",
            value=metric,
        ) from error
