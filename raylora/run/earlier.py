"""Results of earlier runs and recorded grids, for a search to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raylora.build import build_task
from raylora.errors import UserError
from raylora.run.stored import is_stored
from raylora.run.trials import judge_trials

if TYPE_CHECKING:
    from searchers.surrogate.transfer import Source


def read_source(field: str, path: str) -> Source:
    """What a run's folder or a grid's CSV knows, for a search to learn from.

    Args:
        field: of the spec, for messages.
        path: a folder that `raylora tune` made, or a CSV of knobs and `accuracy` (`raylora.data.grids`).

    Raises:
        UserError: neither, or fewer than two results.
    """
    place = Path(path).expanduser()
    source: Source = _run(field, path) if is_stored(path) or place.is_dir() else _grid(field, path)
    if len(source["configs"]) < 2:
        raise UserError(
            f"{field}: {path!r} has {len(source['configs'])} results; allowed: two or more", field=field, value=path
        )
    return source


def _run(field: str, path: str) -> Source:
    from raylora.run.folder import read_run
    from trainables.journal import Journal

    try:
        folder, spec = read_run(path)
        task = build_task(spec)
    except UserError as error:
        raise UserError(f"{field}: {error}", field=field, value=path) from None
    ends = Journal(folder).concluded().values()
    done = [end for end in ends if not end.stopped and end.metrics.get(task.metric) is not None]
    return {
        "name": folder.name,
        "configs": [end.config for end in done],
        "values": judge_trials(done, task.metric, task.mode).merit.tolist(),
        "samples": int(max((end.metrics.get("samples") or 0 for end in done), default=0)) or None,
    }


def _grid(field: str, path: str) -> Source:
    from raylora.data.grids import load_grid

    try:
        grid = load_grid(path, field)
    except UserError as error:
        raise UserError(f"{error}, or a run's folder", field=field, value=path) from None
    return {
        "name": grid.name,
        "configs": [grid.space.decode(i) for i in grid.values],
        "values": list(grid.values.values()),
        "samples": grid.samples,
    }
