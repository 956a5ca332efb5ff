"""A whole run, new or resumed: checks, search, final stage, files."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path
from typing import cast

from raylora import __version__
from raylora.cluster import connected
from raylora.errors import Interrupted
from raylora.progress import Progress, describe
from raylora.run.final import final_stage
from raylora.run.folder import RUN_MARK, archive_attempt, new_run_folder, read_run, settled, write_best
from raylora.run.keeper import Keeper
from raylora.run.prepare import Run, prepare, stop_actors
from raylora.run.search import search
from raylora.run.state import held
from raylora.run.summary import OnlyBest, Summary, read_summary, write_summary
from raylora.run.trials import best_trial, with_both_alphas
from raylora.spec import Spec
from trainables.journal import Journal, Knobs, trial_key
from trainables.live import FOLDER as LIVE


def tune(spec: Spec, *, quiet: bool = False, began: float | None = None) -> Summary:
    """Run a whole experiment; returns the summary that `summary.json` holds.

    Args:
        began: when the user began to wait, on the monotonic clock; now, where that is not said.

    Raises:
        UserError: The run's folder is in use, or no trial produced a result.
    """
    folder = new_run_folder(spec)
    (folder / RUN_MARK).write_text(f"raylora {__version__}\n")
    (folder / "spec.yaml").write_text(settled(spec).model_copy(update={"name": folder.name}).to_yaml())
    return _run(spec, folder, quiet, Keeper.begin(folder, spec, began))


def resume(run_dir: str | Path, *, quiet: bool = False) -> Summary:
    """Finish a run that was interrupted at any moment; a finished one is answered from its files.

    Finished trials are not trained again, interrupted ones go on from their checkpoints, and the searcher
    goes on from its state.

    Raises:
        UserError: It is no run folder, or another process runs it.
    """
    folder, spec = read_run(run_dir)
    done = read_summary(folder)
    if done is not None and (spec.budget is not None or done["trials"] >= spec.search.trials):
        return done
    spec = spec.model_copy(update={"storage_path": str(folder.parent), "name": folder.name})
    return _run(spec, folder, quiet, Keeper.again(folder, spec), again=True)


def _run(spec: Spec, folder: Path, quiet: bool, keeper: Keeper | None, again: bool = False) -> Summary:
    started = time.time()
    try:
        with held(folder):
            if again:
                archive_attempt(folder)
            Progress(quiet=quiet).say("starting Ray")
            with connected():
                run = prepare(spec, folder, quiet, keeper)
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
    alone = only_best(run, config, value)
    ends = list(Journal(run.folder).concluded().values())
    failed = Counter(end.kind for end in ends if end.failed)
    found = {
        "metric": task.metric,
        "mode": task.mode,
        "trials": len(ends),
        **({"failed": dict(failed)} if failed else {}),
        **((final_stage(run, config) if spec.final.enabled else None) or alone),
        **({"search": run.figures} if run.figures else {}),
        **({"budget": {"budget_s": run.keeper.budget_s, "used_s": round(run.keeper.used_s, 1)}} if run.keeper else {}),
        "run_dir": str(run.folder),
        "wall_s": round(time.time() - started, 1),
    }
    summary = cast(Summary, found)
    write_summary(run.folder, summary)
    for name in ("checkpoints", LIVE):
        shutil.rmtree(run.folder / name, ignore_errors=True)
    if run.keeper is not None:
        run.keeper.write()
    return summary


def only_best(run: Run, config: Knobs, value: float) -> OnlyBest:
    """What is known without a final stage: the validation score of the best trial, and of the default recipe's."""
    found: OnlyBest = {"best": {"config": with_both_alphas(config), "validation": value}}
    default = run.spec.recipe_to_knobs()
    end = Journal(run.folder).concluded().get(trial_key(default))
    score = None if end is None else end.metrics.get(run.task.metric)
    if score is not None:
        found["default"] = {"config": with_both_alphas(default), "validation": score}
    return found
