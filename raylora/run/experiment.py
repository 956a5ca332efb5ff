"""A whole run, new or resumed: checks, search, final stage, files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

from raylora import __version__
from raylora.build import build_task
from raylora.cluster import connected
from raylora.progress import Progress, describe
from raylora.run.better import how_sure
from raylora.run.final import final_stage
from raylora.run.folder import (
    BEGUN,
    RUN_MARK,
    archive_attempt,
    check_same,
    clear_workings,
    new_run_folder,
    read_run,
    settled,
    write_best,
)
from raylora.run.interrupt import interruptible
from raylora.run.keeper import Keeper
from raylora.run.prepare import Run, prepare, stop_actors
from raylora.run.search import search
from raylora.run.state import held
from raylora.run.stored import begin_stored, fetch_results, held_in_store, publish, publish_adapter
from raylora.run.summary import OnlyBest, Summary, read_summary, write_summary
from raylora.run.tracking import Say, Tracking, make_trackers
from raylora.run.trials import best_trial, rank_trials, with_both_alphas, write_trials
from raylora.run.trouble import logged_apart, told_in_one_line
from raylora.spec import Spec
from trainables.journal import Journal, Knobs, trial_key
from trainables.store import told

# What is done with the folder of a run that has just come to its end, before its trackers are told; the second
# argument tells the user a line.
WhenDone = Callable[[Path, Say], None]


def tune(spec: Spec, *, quiet: bool = False, began: float | None = None, when_done: WhenDone | None = None) -> Summary:
    """Run a whole experiment; returns the summary that `summary.json` holds.

    Args:
        began: when the user began to wait, on the monotonic clock; now, where that is not said.
        when_done: see `WhenDone`.

    Raises:
        UserError: The run's folder is in use, or no trial produced a result.
    """
    folder = new_run_folder(spec)
    (folder / RUN_MARK).write_text(f"raylora {__version__}\n")
    text = settled(spec).model_copy(update={"name": folder.name}).to_yaml()
    for name in ("spec.yaml", BEGUN):
        (folder / name).write_text(text)
    begin_stored(folder)
    return _run(spec, folder, quiet, Keeper.begin(folder, spec, began), when_done)


def resume(run_dir: str | Path, *, quiet: bool = False, when_done: WhenDone | None = None) -> Summary:
    """Finish a run that was interrupted at any moment; a finished one is answered from its files.

    Finished trials are not trained again, interrupted ones go on from their checkpoints, and the searcher
    goes on from its state. What the run's spec.yaml says now holds: more trials are added, other limits kept.

    Raises:
        UserError: It is no run folder, another process runs it, or its spec.yaml has become another experiment's.
    """
    folder, spec = read_run(run_dir)
    fetch_results(folder)
    check_same(folder, spec)
    done = read_summary(folder)
    if done is not None and (spec.budget is not None or spec.search.trials <= done.get("asked", done["trials"])):
        return done
    return _run(_there(spec, folder), folder, quiet, Keeper.again(folder, spec), when_done, again=True)


def finish(run_dir: str | Path, *, quiet: bool = False, when_done: WhenDone | None = None) -> Summary:
    """End an interrupted run with the trials that it has: no further one, the final stage, the summary.

    Raises:
        UserError: It is no run folder, another process runs it, or no trial has a result.
    """
    folder, spec = read_run(run_dir)
    fetch_results(folder)
    check_same(folder, spec)
    done = read_summary(folder)
    if done is not None:
        return done
    task = build_task(spec)
    best_trial(folder, task.metric, task.mode)  # before anything starts: whether there is one
    keeper = Keeper.again(folder, spec)
    if keeper is not None:
        keeper.bounded = False  # asked for after all, it is done whole
    return _run(_there(spec, folder), folder, quiet, keeper, when_done, again=True, searching=False)


def _there(spec: Spec, folder: Path) -> Spec:
    return spec.model_copy(update={"storage_path": told(folder).rpartition("/")[0], "name": folder.name})


def _run(
    spec: Spec,
    folder: Path,
    quiet: bool,
    keeper: Keeper | None,
    when_done: WhenDone | None,
    again: bool = False,
    searching: bool = True,
) -> Summary:
    started = time.time()
    trackers = make_trackers(spec)
    with held(folder), held_in_store(folder), interruptible(folder), logged_apart(folder), told_in_one_line(folder):
        if again:
            archive_attempt(folder)
        Progress(quiet=quiet).say("starting Ray")
        with connected():
            run = prepare(spec, folder, quiet, keeper)
            try:
                run.tracking = Tracking(trackers, folder, run.spec, run.progress.say)
                if searching:
                    search(run, again)
                else:
                    write_trials(folder)
                summary = _finish(run, started)
            finally:
                stop_actors(run)
    # Without Ray and the folder's lock: it is a finished run's by now.
    if when_done is not None:
        when_done(folder, run.progress.say)
        publish(folder)
    run.tracking.finish(summary)
    run.tracking.close()
    return summary


def _finish(run: Run, started: float) -> Summary:
    """Pick the best recipe, run the final stage, write the run's files."""
    task, spec = run.task, run.spec
    ranking = rank_trials(run.folder, task.metric, task.mode)
    best = ranking.best
    config, value = dict(best.config), best.metrics[task.metric]
    assert value is not None
    write_best(run.folder, spec, config)
    run.progress.say(f"best recipe: {describe(config)}  ({task.metric} {value:.4f} on validation)")
    outcome = (final_stage(run, config) if spec.final.enabled else None) or only_best(run, config, value)
    default = trial_key(spec.recipe_to_knobs())
    better = how_sure(run.folder, outcome, task.mode, spec.final.seeds, ranking, default)
    ends = list(Journal(run.folder).concluded().values())
    failed = Counter(end.kind for end in ends if end.failed)
    found = {
        "metric": task.metric,
        "mode": task.mode,
        "trials": len(ends),
        "asked": spec.search.trials,
        **({"failed": dict(failed)} if failed else {}),
        **outcome,
        **({"better": better} if better else {}),
        **({"search": run.figures} if run.figures else {}),
        **({"budget": {"budget_s": run.keeper.budget_s, "used_s": round(run.keeper.used_s, 1)}} if run.keeper else {}),
        "run_dir": told(run.folder),
        "wall_s": round(time.time() - started, 1),
    }
    summary = cast(Summary, found)
    publish_adapter(run.folder)
    write_summary(run.folder, summary)
    clear_workings(run.folder)
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
