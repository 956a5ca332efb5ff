"""A whole run, new or resumed: checks, search, final stage, files."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import cast

from raylora import __version__
from raylora.cluster import connected
from raylora.errors import Interrupted
from raylora.progress import describe
from raylora.run.final import final_stage
from raylora.run.folder import RUN_MARK, archive_attempt, new_run_folder, read_run, settled, write_best
from raylora.run.prepare import Run, prepare, stop_actors
from raylora.run.search import search
from raylora.run.state import held
from raylora.run.summary import OnlyBest, Summary, read_summary, write_summary
from raylora.run.trials import best_trial, with_both_alphas
from raylora.spec import Spec
from trainables.journal import Journal


def tune(spec: Spec, *, quiet: bool = False) -> Summary:
    """Run a whole experiment; returns the summary that `summary.json` holds.

    Raises:
        UserError: The run's folder is in use, or no trial produced a result.
    """
    folder = new_run_folder(spec)
    (folder / RUN_MARK).write_text(f"raylora {__version__}\n")
    (folder / "spec.yaml").write_text(settled(spec).model_copy(update={"name": folder.name}).to_yaml())
    return _run(spec, folder, quiet)


def resume(run_dir: str | Path, *, quiet: bool = False) -> Summary:
    """Finish a run that was interrupted at any moment; a finished one is answered from its files.

    Finished trials are not trained again, interrupted ones go on from their checkpoints, and the searcher
    goes on from its state.

    Raises:
        UserError: It is no run folder, or another process runs it.
    """
    folder, spec = read_run(run_dir)
    done = read_summary(folder)
    if done is not None and done["trials"] >= spec.search.trials:
        return done
    spec = spec.model_copy(update={"storage_path": str(folder.parent), "name": folder.name})
    return _run(spec, folder, quiet, again=True)


def _run(spec: Spec, folder: Path, quiet: bool, again: bool = False) -> Summary:
    started = time.time()
    try:
        with held(folder):
            if again:
                archive_attempt(folder)
            with connected():
                run = prepare(spec, folder, quiet)
                try:
                    search(run, again)
                    return _finish(run, started)
                finally:
                    stop_actors(run)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; `raylora resume {folder}` goes on") from None


def _finish(run: Run, started: float) -> Summary:
    """Pick the best recipe, run the final stage, write the run's files."""
    task, spec = run.task, run.spec
    best = best_trial(run.folder, task.metric, task.mode)
    config, value = dict(best.config), best.metrics[task.metric]
    assert value is not None
    write_best(run.folder, spec, config)
    run.progress.say(f"best recipe: {describe(config)}  ({task.metric} {value:.4f} on validation)")
    alone: OnlyBest = {"best": {"config": with_both_alphas(config), "validation": value}}
    trials = len(Journal(run.folder).concluded())
    found = {
        "metric": task.metric,
        "mode": task.mode,
        "trials": trials,
        **(final_stage(run, config) if spec.final.enabled else alone),
        **({"search": run.figures} if run.figures else {}),
        "run_dir": str(run.folder),
        "wall_s": round(time.time() - started, 1),
    }
    summary = cast(Summary, found)
    write_summary(run.folder, summary)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    return summary
