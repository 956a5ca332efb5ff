"""Where a run stands, told from its folder: finished, running or interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, TypedDict

from raylora.errors import UserError
from raylora.run.folder import RUN_MARK, planned_trials, read_run
from raylora.run.stored import holder, is_locked, is_stored, stored_runs
from raylora.run.trials import best_trial, trial_table, with_both_alphas
from trainables.journal import Journal
from trainables.store import told

State = Literal["finished", "running", "interrupted", "broken"]
STATUSES = ("finished", "stopped", "diverged", "infeasible", "failed", "unfinished")


class RunStatus(TypedDict):
    """A run at a moment; `best` is null as long as no trial has a result.

    `problem`: why nothing can be told of a run whose files cannot be read, which is `broken`; else null.
    """

    run_dir: str
    state: State
    model: str
    task: str
    searcher: str
    metric: str | None
    mode: str | None
    trials: int  # asked for
    counts: dict[str, int]  # trials so far by status: finished, stopped, diverged, infeasible, failed, unfinished
    best: dict[str, Any] | None  # config, validation
    started: float | None  # seconds since 1970
    last_event: float | None
    problem: str | None


@contextlib.contextmanager
def held(folder: Path, mark: str = RUN_MARK) -> Iterator[None]:
    """Marks the run as running for the duration, for as long as this process lives.

    Args:
        mark: the file in its folder that is locked.

    Raises:
        UserError: another process runs it.
    """
    with (folder / mark).open("r+") as file:
        if not _locked(file):
            raise UserError(
                f"RUN_DIR: another process runs {folder}; wait until it ends, or stop it first",
                field="RUN_DIR",
                value=str(folder),
            )
        yield


def _locked(mark: IO[str], patience_s: float = 1.0) -> bool:
    """Whether the mark is ours now. Who asks for a run's state holds it for a moment: that is waited for."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return True


def run_state(folder: Path) -> State:
    """What the folder's files say; a run of which no process is alive and that has no summary was interrupted."""
    if is_locked(folder / RUN_MARK) or holder(folder) is not None:
        return "running"
    return "finished" if (folder / "summary.json").is_file() else "interrupted"


def run_status(run_dir: str | Path) -> RunStatus:
    """Where a run stands. Reads the folder alone, at any moment, and starts nothing.

    Raises:
        UserError: It is no run folder.
    """
    folder, spec = read_run(run_dir)
    rows = Journal(folder).rows()
    metric, mode = run_aim(folder)
    best = None
    if metric is not None and mode is not None:
        with contextlib.suppress(UserError):
            found = best_trial(folder, metric, mode)
            best = {"config": with_both_alphas(found.config), "validation": found.metrics[metric]}
    table = trial_table(folder)
    counts = Counter(table["status"]) if len(table) else Counter()
    return {
        "run_dir": told(folder),
        "state": run_state(folder),
        "model": spec.model,
        "task": spec.task.name,
        "searcher": spec.search.searcher,
        "metric": metric,
        "mode": mode,
        "trials": planned_trials(folder) or spec.search.trials,
        "counts": {status: counts[status] for status in STATUSES},
        "best": best,
        "started": rows[0]["time"] if rows else None,
        "last_event": rows[-1]["time"] if rows else None,
        "problem": None,
    }


def list_statuses(folder: str | Path) -> list[RunStatus]:
    """The runs right below a folder, the newest first; one whose files cannot be read hides no other.

    Raises:
        UserError: There is no such folder.
    """
    if is_stored(folder):
        found = [_status_or_problem(uri) for uri in stored_runs(str(folder), RUN_MARK)]
        return sorted(found, key=lambda one: one["started"] or 0.0, reverse=True)
    return [_status_or_problem(run) for run in find_runs(folder)]


def _status_or_problem(folder: Path | str) -> RunStatus:
    try:
        return run_status(folder)
    except (UserError, OSError, ValueError, KeyError, TypeError) as error:
        problem = error.message if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return {
        "run_dir": str(folder),
        "state": "broken",
        "model": "",
        "task": "",
        "searcher": "",
        "metric": None,
        "mode": None,
        "trials": 0,
        "counts": dict.fromkeys(STATUSES, 0),
        "best": None,
        "started": None,
        "last_event": None,
        "problem": " ".join(problem.split()),
    }


def run_aim(folder: Path) -> tuple[str | None, str | None]:
    """The metric and its direction; of a task that cannot be built here (its data are elsewhere), neither."""
    summary = folder / "summary.json"
    if summary.is_file():
        found = json.loads(summary.read_text())
        return found["metric"], found["mode"]
    from raylora.build import build_task

    try:
        task = build_task(read_run(folder)[1])
    except UserError:
        return None, None
    return task.metric, task.mode


def find_runs(folder: str | Path) -> list[Path]:
    """The runs right below a folder, the newest first.

    Raises:
        UserError: There is no such folder.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise UserError(
            f"FOLDER: {str(folder)!r} is no folder; give the storage_path of your runs",
            field="FOLDER",
            value=str(folder),
            allowed="the storage_path of your runs",
        )
    marks = place.glob(f"*/{RUN_MARK}")
    return [mark.parent for mark in sorted(marks, key=lambda mark: mark.stat().st_mtime, reverse=True)]
