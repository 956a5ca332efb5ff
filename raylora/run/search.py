"""The search of a run, under Tune."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.errors import UserError
from raylora.progress import Standing
from raylora.run.booking import RunCallback
from raylora.run.crew import MOST, Crew
from raylora.run.curve import CurveScheduler, CurveSearcher, conclude_paused
from raylora.run.embeddings import keep_embeddings
from raylora.run.journaled import JournaledSearcher
from raylora.run.keeper import Keeper
from raylora.run.pool import Pool
from raylora.run.prepare import Run
from raylora.run.searcher import WORST_LOSS, build_searcher, scheduler
from raylora.run.steering import Steering
from raylora.run.stored import RAY_TRAIN, TUNE, publish
from raylora.run.tracked import TrackingCallback
from raylora.run.trials import write_trials
from searchers.surrogate.link import LOSS
from trainables.journal import ERRORS, Ending, Journal, Knobs, trial_key
from trainables.store import store_of, told

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

    from searchers.base import SpaceSearcher


def search(run: Run, again: bool) -> None:
    """Run the search under Tune, unless the journal already has every trial."""
    from ray import tune as ray_tune

    spec, setup = run.spec, run.setup
    inner = build_searcher(
        spec,
        run.task,
        setup.settings.samples,
        ratios=run.ratios,
        space=run.space,
        say=run.progress.say,
        seconds=partial(predicted_seconds, run),
    )
    curve = pausing(run, inner) if spec.search.scheduler == "curve" else None
    metric, mode = (run.task.metric, run.task.mode) if curve is None else (LOSS, "min")
    searcher = curve or JournaledSearcher(inner, str(run.folder), metric=metric, mode=mode)
    if again:
        searcher.catch_up(run.progress.say)
    most = run.keeper.most_trials() if run.keeper else run.trials
    searcher.trials = most
    if run.crew is not None:
        searcher.places, run.crew.setup = partial(places, run.crew, setup.pack), setup
    if run.keeper is not None:
        keep_to_budget(run, run.keeper, searcher, again)
    if run.recipes is not None:
        keep_to_recipes(run, run.recipes, searcher)
    callback = RunCallback(
        str(run.folder), run.task.metric, run.task.mode, run.trials, partial(show_trial, run), run.progress.say
    )
    steering = Steering(run, searcher, callback)
    if again:
        steering.go_on()
    trainable: object
    if run.group is None:
        from trainables.host import start_pool
        from trainables.hosted import HostedTrial

        # Tune keeps a reference to it for as long as Ray lives: it has to be ended, as the hosts are.
        run.pool = start_pool(run.hosts)
        trainable = ray_tune.with_parameters(
            HostedTrial,
            pool=run.pool,
            worst={run.task.metric: run.task.worst, **({} if curve is None else {LOSS: WORST_LOSS})},
            deaths=spec.search.max_failures,
            pack=setup.pack,
        )
    else:
        from trainables.distributed import fit_group

        trainable = ray_tune.with_parameters(
            fit_group, setup=setup, group=run.group, storage=f"{told(run.folder)}/{RAY_TRAIN}"
        )
    run.progress.say(
        f"search: {spec.search.searcher}, {run.trials} of {len(run.space or spec.to_space())} configurations, "
        f"{setup.settings.samples} samples each"
    )
    callbacks = [callback, steering, *([TrackingCallback(str(run.folder), run.tracking)] if run.tracking else [])]
    tuner = ray_tune.Tuner(
        ray_tune.with_resources(trainable, _resources(run)),
        tune_config=ray_tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler(spec, setup.settings.samples) if curve is None else CurveScheduler(curve),
            metric=metric,
            mode=mode,
            # Those that fail are replaced, and people may ask for more; the searcher says when there are enough.
            num_samples=-1,
            # What is paused would count as well.
            max_concurrent_trials=_at_a_time(run) if curve is None else None,
            reuse_actors=run.group is None,
            time_budget_s=spec.search.time_s if run.keeper is None else run.keeper.hard_stop_s(),
            trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
        ),
        run_config=ray_tune.RunConfig(
            **tune_storage(run.folder),
            failure_config=ray_tune.FailureConfig(max_failures=spec.search.max_failures),
            callbacks=callbacks,
            verbose=0,
        ),
    )
    started = time.monotonic()
    with contextlib.ExitStack() as watching:
        if run.crew is not None:
            watching.enter_context(run.crew.watching(run.pool))
        watching.enter_context(run.progress.watching(run.folder, partial(standing, run, callback, searcher)))
        tuner.fit()
    if curve is not None and (curve.over or time.monotonic() - started >= (spec.search.time_s or math.inf)):
        conclude_paused(run.folder, curve)
    steering.refuse()
    write_trials(run.folder)
    _log_searcher(run, searcher, time.monotonic() - started)
    if searcher.inner is not None:
        keep_embeddings(run.folder, searcher.inner, run.progress.say)
    if searcher.failed:
        run.progress.say(f"{searcher.failed} trials failed; {run.folder / ERRORS} has the tracebacks")
    if searcher.hopeless:
        failures = [end for end in Journal(run.folder).concluded().values() if end.failed]
        message = failures[-1].message if failures else "unknown error"
        which = f"the first {searcher.failed} trials" if searcher.failed > 1 else "the first trial"
        raise UserError(f"search: {which} failed; the last message: {message}", field="search.trials")


def places(crew: Crew, pack: int) -> int:
    """Trials at a time that there is room for now."""
    return crew.places() * pack


def _resources(run: Run) -> dict[str, float] | PlacementGroupFactory:
    """What a trial asks of Ray. The work is done on hosts and worker groups; Tune insists on a request above zero.

    Trials on hosts stay beside the driver: on another node they would leave with it, and Tune takes a trial for failed
    that it was about to give to one that has.
    """
    import ray
    from ray.tune import PlacementGroupFactory

    from clusters.places import beside

    own = beside(ray.get_runtime_context().get_node_id(), ray.nodes()) if run.group is None else None
    return PlacementGroupFactory(**own) if own else {"cpu": 0.001}


def _at_a_time(run: Run) -> int:
    """Trials that Tune may have at a time; where the cluster says how many, the searcher does."""
    return MOST if run.crew else run.spec.resources.at_a_time * run.setup.pack


def pausing(run: Run, inner: SpaceSearcher) -> CurveSearcher:
    """The searcher of `search.scheduler: curve`: its budget is the samples of so many whole trials."""
    spec, settings = run.spec, run.setup.settings
    pool = Pool(run.space or spec.to_space(), settings.samples, settings.due, most=spec.search.configurations)
    searcher = CurveSearcher(inner, str(run.folder), pool, spec.resources.at_a_time, run.trials)
    searcher.deadline = run.setup.deadline
    return searcher


def tune_storage(folder: Path) -> dict[str, str]:
    """Where Tune keeps its own records: in the run's folder; in a store, below it, each attempt's apart."""
    store = store_of(folder)
    if store is None:
        return {"name": folder.name, "storage_path": str(folder.parent)}
    return {"name": time.strftime("%Y%m%d-%H%M%S"), "storage_path": f"{store.uri}/{TUNE}"}


def predicted_seconds(run: Run) -> dict[str, object]:
    """What trials are predicted to take, by what of a configuration that depends on (see `searchers.gp`)."""
    from raylora import models
    from raylora.run.planned import estimated

    spec, cost = run.spec, run.keeper.calibrated if run.keeper is not None else None
    if cost is None:
        cost = estimated(spec, run.task, run.data, str(models.resolve(spec.model)))
    scored = len(run.data.validation) * spec.scorings
    kinds = product(spec.space.variant, spec.space.rank, spec.space.batch_size)
    return {
        "knobs": ("variant", "rank", "batch_size"),
        "seconds": {kind: cost.trial_seconds(*kind, run.setup.settings.samples, scored) for kind in kinds},
    }


def standing(run: Run, callback: RunCallback, searcher: JournaledSearcher) -> Standing:
    """Where the search stands."""
    done, keeper = callback.count, run.keeper
    doing = "choosing what to try next" if searcher.choosing else f"knows {done} results"
    return Standing(
        stage="search",
        done=done,
        total=max(done, run.trials),
        best=callback.best,
        default=callback.values.get(trial_key(run.spec.recipe_to_knobs())),
        recipe=callback.recipe,
        left_s=None if keeper is None else keeper.shown_left_s,
        searcher=f"searcher {run.spec.search.searcher}: {doing}",
    )


def show_trial(
    run: Run, count: int, total: int, config: Knobs, end: Ending, best: float | None, replayed: bool
) -> None:
    """A trial has ended: its line, and what it says of the others' costs."""
    if run.keeper is not None and not replayed:
        run.keeper.ended(Journal(run.folder))
    with contextlib.suppress(OSError):  # what counts is in the journal; this is put with the next trial
        publish(run.folder)
    run.progress.trial(count, max(count, total), config, end, best, replayed)


def keep_to_budget(run: Run, keeper: Keeper, searcher: JournaledSearcher, again: bool) -> None:
    """Let no trial start that would end too late, and try the default recipe first: it is what is compared with."""
    inner, journal = searcher.inner, Journal(run.folder)
    assert inner is not None
    paused = run.spec.search.scheduler == "curve"
    searcher.enough = lambda: keeper.enough(len(journal.started() if paused else journal.concluded()))
    if not again:
        # Outside the space, it is left to the final stage.
        with contextlib.suppress(ValueError, KeyError):
            inner.enqueue([run.spec.recipe_to_knobs()])


def keep_to_recipes(run: Run, recipes: Sequence[Knobs], searcher: JournaledSearcher) -> None:
    """Try these configurations of the space and no other; those that have begun are the journal's."""
    inner, begun = searcher.inner, Journal(run.folder).started()
    assert inner is not None
    inner.enqueue([recipe for recipe in recipes if trial_key(recipe) not in begun])
    searcher.enough = lambda: not inner.queued


def _log_searcher(run: Run, searcher: JournaledSearcher, seconds: float) -> None:
    """How long Tune's loop waited in `suggest`, and how much of the slots' time passed without a suggestion."""
    inner = searcher.inner
    if inner is None or not inner.suggest_seconds:
        return
    slots = seconds * run.spec.resources.at_a_time if run.crew is None else run.crew.slot_seconds
    idle = inner.waited_s / max(slots * run.setup.pack, 1e-9)
    longest = 1000 * max(inner.suggest_seconds)
    run.figures = {"suggest_calls": len(inner.suggest_seconds), "suggest_max_ms": longest, "idle_share": idle}
    line = f"suggest(): {len(inner.suggest_seconds)} calls, the longest {longest:.0f} ms; "
    line += f"slots idle for want of a suggestion {100 * idle:.1f} % of the time"
    fresh = getattr(inner, "fresh", [])
    if fresh:
        run.figures["staged"], run.figures["staged_fresh"] = len(fresh), sum(fresh)
        line += f"; {sum(fresh)} of {len(fresh)} staged proposals knew the newest result"
    run.progress.say(line)
