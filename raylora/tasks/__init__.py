"""Tasks by name.

A family is one file here, called as the family, or a class of another package (entry points `raylora.tasks`); see
`Task` for what it declares.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from raylora.data.rows import Row
from raylora.errors import UserError
from raylora.tasks.base import Task
from trainables.registry import PluginError, Registry

__all__ = ["TASKS", "Row", "Task", "available", "describe", "make_task"]

_APART = ("base", "labels", "programs", "prompts", "published", "scoring")
TASKS: Registry[Task] = Registry(__name__, group="raylora.tasks", base=f"{__name__}.base:Task", apart=_APART)


def available() -> list[str]:
    """Every task name that `make_task` takes here; of a family whose package is missing, none."""
    return [name for cls in TASKS.classes().values() for name in cls.offers()]


def describe() -> list[dict[str, str]]:
    """One row per family: name (with what stands behind the slash), summary, options."""
    return [
        {"name": _pattern(cls), "summary": cls.summary, "options": ", ".join(_options(cls))}
        for cls in TASKS.classes().values()
    ]


def make_task(name: str, options: Mapping[str, Any] | None = None, **more: Any) -> Task:
    """The task called `name` (`gsm8k`, `instruct`, `reasoning_gym/<generator>`) with its options.

    Options are the keyword arguments of the task's class: `path`, `match`, `train_rows`, `test_rows`, `seed`,
    `max_new_tokens`, ... `more` takes the same; those that are None are left to their defaults. `seed` is for
    tasks that generate their rows, `list_labels` for those that read labelled rows; the others accept them and have no
    use for them.

    Raises:
        UserError: unknown name or option, an option given twice, or a value that the task refuses.
    """
    chosen = dict(options or {})
    for option, value in more.items():
        if value is None:
            continue
        if option in chosen:
            raise UserError.at(
                f"task.{option}", f"given twice, {value!r} and options.{option}; keep one of them", value=value
            )
        chosen[option] = value
    cls, part = _family(name)
    known = _options(cls)
    for option in ("seed", "list_labels"):
        if option not in known:
            chosen.pop(option, None)
    if "path" in chosen and "path" not in known:
        raise UserError.at("task.path", f"{name} generates its rows; remove task.path", value=chosen["path"])
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for option in chosen:
            if option not in known:
                raise UserError.at(
                    f"task.{option}",
                    f"{name} has no such option; it takes {', '.join(known)}",
                    value=chosen[option],
                    allowed=list(known),
                )
    for parameter in known.values():
        needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if needed and parameter.name not in chosen:
            raise UserError.at(f"task.{parameter.name}", f"{name} needs it; set task.{parameter.name}")
    make: Any = cls
    task: Task = make(*([part] if cls.part else []), **chosen)
    task.aim()
    return task


def _family(name: str) -> tuple[type[Task], str]:
    """The class of a task's family, and what stands behind the slash."""
    family, slash, part = name.partition("/")
    try:
        cls = TASKS.get(family)
    except PluginError as error:
        raise UserError.at("task.name", str(error), value=name) from None
    if cls is None or bool(cls.part) != bool(slash):
        *patterns, last = [_pattern(one) for one in TASKS.classes().values()]
        raise UserError.at(
            "task.name",
            f"unknown {name!r}; choose {', '.join(patterns)} or {last}",
            value=name,
            allowed=[*patterns, last],
        )
    return cls, part


def _pattern(cls: type[Task]) -> str:
    return f"{cls.name}/<{cls.part}>" if cls.part else cls.name


def _options(cls: type[Task]) -> dict[str, inspect.Parameter]:
    """The constructor's keyword arguments by name, the one that stands for all others included."""
    # A family that only adds to its base's options passes the others on.
    parameters: dict[str, inspect.Parameter] = {}
    for kind in cls.__mro__:
        made: Any = vars(kind).get("__init__")
        own = {} if made is None else dict(inspect.signature(made).parameters)
        parameters = {**own, **parameters}
        if own and not any(one.kind is one.VAR_KEYWORD for one in own.values()):
            parameters = {name: one for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD}
            break
    return {name: p for name, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD)}
