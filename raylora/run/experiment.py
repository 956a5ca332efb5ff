"""Spec -> search -> final stage -> files. The whole of a run, new or resumed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raylora import __version__
from raylora.build import (
    build_data,
    build_task,
    threads_per_host,
    train_settings,
    worker_group,
)
from raylora.cluster import connected
from raylora.errors import UserError
from raylora.progress import Progress, describe
from raylora.run.fit import check_fit
from raylora.run.journaled import JournaledSearcher, RunCallback
from raylora.run.results import (
    RUN_MARK,
    best_trial,
    read_run,
    with_both_alphas,
    write_best,
    write_summary,
    write_trials,
)
from raylora.run.searcher import build_searcher, scheduler
from raylora.spec import Spec
from raylora.statistics import mean_and_error
from trainables.distributed import WorkerGroup
from trainables.journal import Journal, trial_key
from trainables.protocols import TrainSettings, TrialSetup

CURVATURE = "curvature.json"


@dataclass
class Run:
    """A run in progress: what the search and the final stage share."""

    spec: Spec
    folder: Path
    progress: Progress
    task: Any
    data: Any
    setup: TrialSetup
    group: WorkerGroup | None
    hosts: list[Any] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    policy: Any = None

    @property
    def base_name(self) -> str:
        return str(self.setup.model_folder)


def tune(spec: Spec, *, quiet: bool = False) -> dict[str, Any]:
    """Run a whole experiment; returns the summary that `summary.json` holds.

    Raises:
        UserError: The run's folder is in use, or no trial produced a result.
    """
    folder = new_run_folder(spec)
    (folder / RUN_MARK).write_text(f"raylora {__version__}\n")
    (folder / "spec.yaml").write_text(spec.model_copy(update={"name": folder.name}).to_yaml())
    return _run(spec, folder, quiet)


def resume(run_dir: str | Path, *, quiet: bool = False) -> dict[str, Any]:
    """Finish a run that was interrupted at any moment; a finished one is answered from its files.

    Finished trials are not trained again, interrupted ones go on from their checkpoints, and the searcher
    goes on from its state.
    """
    folder, spec = read_run(run_dir)
    spec = spec.model_copy(update={"storage_path": str(folder.parent), "name": folder.name})
    _archive_attempt(folder)
    return _run(spec, folder, quiet, again=True)


def new_run_folder(spec: Spec) -> Path:
    """Create the run's folder: `storage_path/name`; the default name is the task and the time."""
    name = spec.name or f"{spec.task.name.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(spec.storage()) / name
    if not spec.name and folder.exists():
        folder = folder.with_name(f"{name}-{os.getpid()}")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"name: {folder} is in use; choose another name, or `raylora resume {folder}`")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _archive_attempt(folder: Path) -> None:
    """Move what the interrupted attempt left of Tune's own records to `attempts/N/`.

    The resumed experiment lists all trials anew, the finished ones answered from the journal, so Tune's
    analysis of the run's folder shows one whole experiment.
    """
    kept = "spec.yaml", "trials.jsonl", "searcher.pkl", "checkpoints", "strategies", "final", "attempts"
    keep = {RUN_MARK, CURVATURE, *kept}
    left = [path for path in folder.iterdir() if path.name not in keep]
    if left:
        attempts = folder / "attempts"
        target = attempts / str(1 + sum(1 for _ in attempts.iterdir()) if attempts.exists() else 1)
        target.mkdir(parents=True)
        for path in left:
            shutil.move(str(path), target / path.name)


def _run(spec: Spec, folder: Path, quiet: bool, again: bool = False) -> dict[str, Any]:
    started = time.time()
    with connected():
        run = _prepare(spec, folder, quiet)
        try:
            _search(run, again)
            summary = _finish(run, started)
        finally:
            _stop_hosts(run)
    return summary


def _prepare(spec: Spec, folder: Path, quiet: bool) -> Run:
    """Resolve the model, build the data once, and start the hosts."""
    from clusters.storage import check_cluster_storage
    from raylora import models

    check_cluster_storage(str(folder))
    task = build_task(spec)
    progress = Progress(task.metric, quiet)
    progress.say(f"run folder: {folder}")
    progress.say(f"base model: {spec.model}")
    model_folder = models.resolve(spec.model, quiet=quiet)
    prepared = build_data(spec, task, str(model_folder))
    progress.say(f"data: {rows_kept(prepared.counts)}")
    settings = train_settings(spec, prepared.counts["proxy"])
    ratios: dict[str, float] = {}
    if spec.search.knowledge.curvature and set(spec.space.variant) != {"lora"}:
        # Before the hosts, which would hold the devices.
        ratios = measured_ratios(spec, folder, str(model_folder), settings, prepared.proxy, progress)
    setup = TrialSetup(
        model_folder=spec.model if not Path(spec.model).is_dir() else str(model_folder),
        resolve_model=models.resolve,
        scorer=task,
        settings=settings,
        train=prepared.proxy,
        validation=prepared.validation,
        run_dir=str(folder),
        dtype=spec.dtype,
        threads=threads_per_host(spec),
    )
    policy = start_lelora_policy(spec, folder)
    setup = replace(setup, policy=policy)
    run = Run(spec, folder, progress, task, prepared, setup, worker_group(spec), ratios=ratios, policy=policy)
    if run.group is None:
        from trainables.host import start_hosts

        options = {"accelerator_type": spec.resources.accelerator_type} if spec.resources.accelerator_type else {}
        cpus = spec.resources.cpus_per_host if spec.resources.gpus_per_host else 0
        run.hosts = start_hosts(
            setup, spec.resources.hosts, cpus=cpus or 0, gpus=spec.resources.gpus_per_host, **options
        )
    try:
        check_fit(spec, settings, str(model_folder), run.hosts)
    except BaseException:
        _stop_hosts(run)
        raise
    return run


def measured_ratios(
    spec: Spec, folder: Path, model_folder: str, settings: TrainSettings, proxy: Any, progress: Progress
) -> dict[str, float]:
    """Best rates of the space's variants over LoRA's, from curvature; kept in the run's folder for a resumed run."""
    from raylora.curvature import measure as curvature
    from raylora.curvature.figures import read_figures

    file = folder / CURVATURE
    if not file.exists():
        figures = curvature.measure_on_cluster(spec, model_folder, settings, proxy, progress.say)
        # In one step: a run that dies while it writes measures again.
        fresh = file.with_suffix(".fresh")
        fresh.write_text(json.dumps(figures, indent=2))
        os.replace(fresh, file)
    ratios = curvature.prior_ratios(read_figures(file))
    told = ", ".join(f"{name} {ratio:.2g}" for name, ratio in ratios.items())
    progress.say(f"expected best rates, as multiples of LoRA's: {told or 'nothing but LoRA was measured'}")
    return ratios


def rows_kept(counts: Mapping[str, int]) -> str:
    """The row counts in words; what was dropped only where something was."""
    told = [f"{counts[name]} {name}" for name in ("train", "proxy", "validation")]
    told += [f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if "_dropped_" in name and n]
    return ", ".join(told) + " rows"


def start_lelora_policy(spec: Spec, folder: Path) -> Any:
    """The actor that serves LeLoRA's strategies to all trials, or None where nothing here is LeLoRA.

    Its checkpoints lie with those of the trials: on shared storage on a cluster, and gone when the run is finished.
    """
    if "lelora" not in (*spec.space.variant, spec.default_recipe.variant):
        return None
    from trainables.lelora.actor import start_policy

    return start_policy(folder / "checkpoints" / "policies")


def _stop_hosts(run: Run) -> None:
    import ray

    for actor in [*run.hosts, *([] if run.policy is None else [run.policy])]:
        ray.kill(actor)


# ---- search -------------------------------------------------------------------------------------------


def _search(run: Run, again: bool) -> None:
    """Run the search under Tune, unless the journal already has every trial."""
    from ray import tune as ray_tune

    spec, setup = run.spec, run.setup
    searcher = JournaledSearcher(
        build_searcher(spec, run.task, setup.settings.samples, ratios=run.ratios),
        str(run.folder),
        metric=run.task.metric,
        mode=run.task.mode,
    )
    if again:
        searcher.catch_up()
    callback = RunCallback(str(run.folder), run.task.metric, run.task.mode, spec.search.trials, show=run.progress.trial)
    trainable: Any
    if run.group is None:
        from trainables.host import start_pool
        from trainables.hosted import HostedTrial

        trainable = ray_tune.with_parameters(HostedTrial, pool=start_pool(run.hosts))
    else:
        from trainables.distributed import fit_group

        trainable = ray_tune.with_parameters(
            fit_group, setup=setup, group=run.group, storage=str(run.folder / "ray_train")
        )
    run.progress.say(
        f"search: {spec.search.searcher}, {spec.search.trials} of {spec.space_size} configurations, "
        f"{setup.settings.samples} samples each"
    )
    tuner = ray_tune.Tuner(
        # The work is done on hosts and worker groups; Tune insists on a request above zero.
        ray_tune.with_resources(trainable, {"cpu": 0.001}),
        tune_config=ray_tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler(spec, setup.settings.samples),
            metric=run.task.metric,
            mode=run.task.mode,
            num_samples=spec.search.trials,
            max_concurrent_trials=spec.resources.hosts,
            reuse_actors=run.group is None,
            time_budget_s=spec.search.time_s,
            trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
        ),
        run_config=ray_tune.RunConfig(
            name=run.folder.name,
            storage_path=str(run.folder.parent),
            failure_config=ray_tune.FailureConfig(max_failures=spec.search.max_failures),
            callbacks=[callback],
            verbose=0,
        ),
    )
    started = time.monotonic()
    tuner.fit()
    write_trials(run.folder)
    _log_searcher(run, searcher, time.monotonic() - started)


def _log_searcher(run: Run, searcher: JournaledSearcher, seconds: float) -> None:
    """How long Tune's loop waited in `suggest`, and how much of the slots' time passed without a suggestion."""
    inner = searcher.inner
    if inner is None or not inner.suggest_seconds:
        return
    idle = inner.waited_s / max(seconds * run.spec.resources.hosts, 1e-9)
    longest = 1000 * max(inner.suggest_seconds)
    run.figures = {"suggest_calls": len(inner.suggest_seconds), "suggest_max_ms": longest, "idle_share": idle}
    told = f"suggest(): {len(inner.suggest_seconds)} calls, the longest {longest:.0f} ms; "
    told += f"slots idle for want of a suggestion {100 * idle:.1f} % of the time"
    fresh = getattr(inner, "fresh", [])
    if fresh:
        run.figures["staged"], run.figures["staged_fresh"] = len(fresh), sum(fresh)
        told += f"; {sum(fresh)} of {len(fresh)} staged proposals knew the newest result"
    run.progress.say(told)


# ---- final stage --------------------------------------------------------------------------------------


def _finish(run: Run, started: float) -> dict[str, Any]:
    """Pick the best recipe, run the final stage, write the run's files."""
    task, spec = run.task, run.spec
    best = best_trial(run.folder, task.metric, task.mode)
    config = dict(best["config"])
    write_best(run.folder, spec, config)
    run.progress.say(f"best recipe: {describe(config)}  ({task.metric} {best[task.metric]:.4f} on validation)")
    concluded = Journal(run.folder).concluded()
    summary: dict[str, Any] = {"metric": task.metric, "mode": task.mode, "trials": len(concluded)}
    if spec.final.enabled:
        summary |= _final_stage(run, config)
    else:
        summary["best"] = {"config": with_both_alphas(config), "validation": best[task.metric]}
    if run.figures:
        summary["search"] = run.figures
    summary["run_dir"] = str(run.folder)
    summary["wall_s"] = round(time.time() - started, 1)
    write_summary(run.folder, summary)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    return summary


def _final_stage(run: Run, best: Mapping[str, Any]) -> dict[str, Any]:
    """Score the untouched base, and the default and the best recipe trained on the full data.

    This alone reads the test split. Each piece is journaled, so a resumed run does only what is missing.
    """
    from trainables.recipe import RecipeJob

    spec, name, metric = run.spec, run.base_name, run.task.metric
    test = run.data.test()
    samples = spec.final.budget(run.data.counts["train"])
    both = {"validation": run.data.validation, "test": test}
    final = run.folder / "final"
    jobs = {"base": RecipeJob(folder=str(final / "base"), evaluate_on={"test": test})}
    recipes = {"default": spec.recipe_to_knobs(), "best": dict(best)}
    for k in range(spec.final.seeds):
        for label, knobs in recipes.items():
            jobs[f"{label}-{k}"] = RecipeJob(
                folder=str(final / f"{label}-{k}"),
                evaluate_on=both,
                knobs=knobs,
                train=run.data.train,
                samples=samples,
                seed=spec.seed + k,
                base_name=name,
            )
    run.progress.say(f"final stage: base, default and best recipe; {samples} samples, {spec.final.seeds} seed(s)")
    results = _run_jobs(run, jobs)
    summary: dict[str, Any] = {"base": {"test": results["base"]["test"][metric]}}
    for label, knobs in recipes.items():
        runs = [results[f"{label}-{k}"] for k in range(spec.final.seeds)]
        entry: dict[str, Any] = {"config": with_both_alphas(knobs)}
        for split in both:
            mean, error = mean_and_error([r[split][metric] for r in runs])
            entry[split] = mean
            # One seed: the standard error over the rows; several: over the seeds.
            entry[f"{split}_se"] = error if error is not None else runs[0][split].get(f"{metric}_se")
        summary[label] = entry
    sign = 1 if run.task.mode == "max" else -1
    chosen = max(range(spec.final.seeds), key=lambda k: sign * results[f"best-{k}"]["validation"][metric])
    source = final / f"best-{chosen}" / "adapter"
    if source.is_dir():
        shutil.rmtree(run.folder / "adapter", ignore_errors=True)
        shutil.copytree(source, run.folder / "adapter")
    return summary


def _run_jobs(run: Run, jobs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Results of the final stage's jobs, side by side over the hosts; those journaled already are read."""
    import ray

    journal = Journal(run.folder)
    identity = {
        label: trial_key({"knobs": dict(job.knobs or {}), "samples": job.samples, "seed": job.seed})
        for label, job in jobs.items()
    }
    known = {row["key"]: row["result"] for row in journal.rows() if row["event"] == "final"}
    results = {label: known[key] for label, key in identity.items() if key in known}
    waiting = [label for label in jobs if label not in results]

    def book(label: str, result: dict[str, Any]) -> None:
        journal.append("final", identity[label], label=label, result=result)
        results[label] = result
        score = result["test"][run.task.metric]
        run.progress.say(f"  {label}: {run.task.metric} {score:.4f} on test")

    if run.group is not None:
        from trainables.distributed import fit_recipes

        if waiting:
            storage = str(run.folder / "ray_train")
            done = fit_recipes([jobs[label] for label in waiting], run.setup, run.group, storage)
            for label, result in zip(waiting, done, strict=True):
                book(label, result)
        return results
    free = list(run.hosts)
    busy: dict[Any, tuple[Any, str]] = {}
    while waiting or busy:
        while waiting and free:
            host, label = free.pop(), waiting.pop(0)
            busy[host.recipe.remote(jobs[label])] = (host, label)
        (ready, *_), _ = ray.wait(list(busy), num_returns=1)
        host, label = busy.pop(ready)
        book(label, ray.get(ready))
        free.append(host)
    return results
