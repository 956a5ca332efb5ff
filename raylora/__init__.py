"""raylora: give it a base model, a task and a budget; it finds the LoRA recipe.

Importing this package is quick: torch, ray and transformers load only when something needs them.

    >>> import raylora
    >>> run = raylora.open_run("runs/sums")
    >>> run.state
    'finished'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylora.api.evaluating import Evaluation, evaluate
    from raylora.api.listing import (
        list_metrics,
        list_models,
        list_runs,
        list_searchers,
        list_tasks,
        list_trackers,
        list_variants,
    )
    from raylora.api.recommending import Recommendation, recommend
    from raylora.api.run import Run
    from raylora.api.tuned import TunedModel
    from raylora.api.tuning import export, finish, load_spec, open_run, resume, tune
    from raylora.errors import UserError
    from raylora.spec import Spec

__version__ = "0.1.0"

__all__ = [
    "Evaluation",
    "Recommendation",
    "Run",
    "Spec",
    "TunedModel",
    "UserError",
    "evaluate",
    "export",
    "finish",
    "list_metrics",
    "list_models",
    "list_runs",
    "list_searchers",
    "list_tasks",
    "list_trackers",
    "list_variants",
    "load_spec",
    "open_run",
    "recommend",
    "resume",
    "tune",
]

_PLACES = {
    "Evaluation": "api.evaluating",
    "Recommendation": "api.recommending",
    "Run": "api.run",
    "Spec": "spec",
    "TunedModel": "api.tuned",
    "UserError": "errors",
    "evaluate": "api.evaluating",
    "recommend": "api.recommending",
    **dict.fromkeys(("export", "finish", "load_spec", "open_run", "resume", "tune"), "api.tuning"),
    **dict.fromkeys([name for name in __all__ if name.startswith("list_")], "api.listing"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
