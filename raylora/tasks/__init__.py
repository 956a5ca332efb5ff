"""Tasks by name. A new family is one file and one line in `make_task`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from raylora.data.rows import Row
from raylora.errors import UserError
from raylora.tasks.base import Task

__all__ = ["FAMILIES", "Row", "Task", "available", "make_task"]

FAMILIES = {
    "gsm8k": "grade-school word problems; right where the final number is (options: path)",
    "instruct": "your own prompt/response rows from Parquet, JSON Lines or the hub (options: path, match)",
    "reasoning_gym": "generated puzzles and sums with exact scorers: reasoning_gym/<generator>",
}


def available() -> list[str]:
    """Every task name that `make_task` takes here, with the generators of reasoning-gym where it is installed."""
    from raylora.tasks.reasoning_gym import PREFIX, generators

    try:
        generated = [PREFIX + name for name in generators()]
    except UserError:
        generated = []
    return ["gsm8k", "instruct", *generated]


def make_task(name: str, options: Mapping[str, Any] | None = None, **more: Any) -> Task:
    """The task called `name` (`gsm8k`, `instruct`, `reasoning_gym/<generator>`) with its options.

    Options are the keyword arguments of the task's class: `path`, `match`, `train_rows`, `test_rows`, `seed`,
    `max_new_tokens`, ... `more` takes the same; those that are None are left to their defaults. `seed` is for
    tasks that generate their rows; the others accept it and have no use for it.

    Raises:
        UserError: unknown name or option, an option given twice, or a value that the task refuses.
    """
    chosen = dict(options or {})
    for option, value in more.items():
        if value is None:
            continue
        if option in chosen:
            raise UserError(f"task.{option}: given twice, {value!r} and options.{option}; keep one of them")
        chosen[option] = value
    build: Any
    if name == "gsm8k":
        from raylora.tasks.gsm8k import Gsm8kTask as build
    elif name == "instruct":
        from raylora.tasks.instruct import InstructTask as build
    elif name.startswith("reasoning_gym/"):
        from raylora.tasks.reasoning_gym import ReasoningGymTask

        if "path" in chosen:
            raise UserError(f"task.path: {name} generates its rows; remove task.path")
        return ReasoningGymTask(name.removeprefix("reasoning_gym/"), **chosen)
    else:
        raise UserError(f"task.name: unknown {name!r}; choose gsm8k, instruct or reasoning_gym/<generator>")
    chosen.pop("seed", None)
    known = inspect.signature(build).parameters
    for option in chosen:
        if option not in known:
            raise UserError(f"task.{option}: {name} has no such option; it takes {', '.join(known)}")
    for parameter in known.values():
        if parameter.default is parameter.empty and parameter.name not in chosen:
            raise UserError(f"task.{parameter.name}: {name} needs it; set task.{parameter.name}")
    return build(**chosen)
