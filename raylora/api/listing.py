"""What there is to choose from, as the lists of the command line tell it. Rows are plain dicts of strings and lists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylora.run.state import RunStatus


def list_variants() -> list[dict[str, Any]]:
    """One row per variant: name, summary, paper, parameters, exports_lora, saves, runs_on, options.

    Imports torch.

    Example:
        >>> [row["exports_lora"] for row in raylora.list_variants() if row["name"] == "lora"]
        [True]
    """
    from trainables.variants import describe

    return describe()


def list_searchers() -> list[dict[str, Any]]:
    """One row per searcher: name, summary.

    Example:
        >>> "random" in [row["name"] for row in raylora.list_searchers()]
        True
    """
    from searchers import SEARCHERS

    return [{"name": name, "summary": cls.summary} for name, cls in SEARCHERS.classes().items()]


def list_tasks() -> list[str]:
    """Every name that `task.name` takes here.

    Example:
        >>> "instruct" in raylora.list_tasks()
        True
    """
    from raylora.tasks import available

    return available()


def list_metrics() -> list[dict[str, str]]:
    """One row per metric: name, summary.

    Example:
        >>> [row["name"] for row in raylora.list_metrics() if row["name"] == "exact"]
        ['exact']
    """
    from raylora.metrics import available

    return [{"name": name, "summary": summary} for name, summary in available().items()]


def list_trackers() -> list[dict[str, str]]:
    """One row per tracker: name, summary.

    Example:
        >>> isinstance(raylora.list_trackers(), list)
        True
    """
    from raylora.run.trackers import TRACKERS

    return [{"name": name, "summary": cls.summary} for name, cls in TRACKERS.classes().items()]


def list_models() -> list[dict[str, str | None]]:
    """One row per bundled alias: alias, source, and path, None until the model is in the cache.

    Example:
        >>> raylora.list_models()[0]["alias"]
        'smollm2-135m'
    """
    from raylora.models import list_models

    return list_models()


def list_runs(folder: str | Path = "runs") -> list[RunStatus]:
    """The runs right below a folder, the newest first, each as `Run.status` tells it, or `broken` with its `problem`.

    Raises:
        UserError: There is no such folder.

    Example:
        >>> "finished" in [row["state"] for row in raylora.list_runs("runs")]
        True
    """
    from raylora.run.state import list_statuses

    return list_statuses(folder)
