"""The final stage of a run: base, default and best recipe, trained on the full data and scored on test."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from raylora.run.prepare import Run
from raylora.run.summary import FinalSummary, RecipeSummary
from raylora.run.trials import with_both_alphas
from raylora.statistics import mean_and_error
from trainables.journal import Journal, Knobs, trial_key

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from trainables.recipe import RecipeJob, RecipeResult


def final_stage(run: Run, best: Knobs) -> FinalSummary:
    """Score the untouched base, and the default and the best recipe trained on the full data.

    This alone reads the test split. Each piece is journaled, so a resumed run does only what is missing.
    """
    from trainables.recipe import RecipeJob

    spec, name, metric = run.spec, run.base_name, run.task.metric
    test, counts = run.data.test()
    leaked = counts["test_prompts_in_train"]
    if leaked:
        run.progress.say(f"data: {leaked} of {counts['test']} test rows have a prompt that is also trained on")
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
    seeds = range(spec.final.seeds)
    summary: FinalSummary = {
        "base": {"test": _score(results["base"], "test", metric)},
        "default": _entry(recipes["default"], [results[f"default-{k}"] for k in seeds], metric),
        "best": _entry(recipes["best"], [results[f"best-{k}"] for k in seeds], metric),
        "test_rows": counts["test"],
        "test_prompts_in_train": leaked,
    }
    sign = 1 if run.task.mode == "max" else -1
    chosen = max(seeds, key=lambda k: sign * _score(results[f"best-{k}"], "validation", metric))
    source = final / f"best-{chosen}" / "adapter"
    if source.is_dir():
        shutil.rmtree(run.folder / "adapter", ignore_errors=True)
        shutil.copytree(source, run.folder / "adapter")
    return summary


def _score(result: RecipeResult, split: str, metric: str) -> float:
    value = result.scores[split][metric]
    return math.nan if value is None else value


def _entry(knobs: Knobs, results: Sequence[RecipeResult], metric: str) -> RecipeSummary:
    """A recipe's scores over the seeds that it was trained under."""

    def told(split: str) -> tuple[float, float | None]:
        mean, error = mean_and_error([_score(result, split, metric) for result in results])
        # One seed: the standard error over the rows; several: over the seeds.
        return mean, error if error is not None else results[0].scores[split].get(f"{metric}_se")

    (validation, validation_se), (test, test_se) = told("validation"), told("test")
    return {
        "config": with_both_alphas(knobs),
        "validation": validation,
        "validation_se": validation_se,
        "test": test,
        "test_se": test_se,
    }


def _run_jobs(run: Run, jobs: Mapping[str, RecipeJob]) -> dict[str, RecipeResult]:
    """Results of the final stage's jobs, side by side over the hosts; those journaled already are read."""
    import ray

    from trainables.recipe import RecipeResult

    journal = Journal(run.folder)
    identity = {
        label: trial_key({"knobs": dict(job.knobs or {}), "samples": job.samples, "seed": job.seed})
        for label, job in jobs.items()
    }
    known = {row["key"]: RecipeResult.from_row(row["result"]) for row in journal.rows() if row["event"] == "final"}
    results = {label: known[key] for label, key in identity.items() if key in known}
    waiting = [label for label in jobs if label not in results]

    def book(label: str, result: RecipeResult) -> None:
        journal.append("final", identity[label], label=label, result=result.to_row())
        results[label] = result
        run.progress.say(f"  {label}: {run.task.metric} {_score(result, 'test', run.task.metric):.4f} on test")

    if run.group is not None:
        from trainables.distributed import fit_recipes

        if waiting:
            storage = str(run.folder / "ray_train")
            done = fit_recipes([jobs[label] for label in waiting], run.setup, run.group, storage)
            for label, result in zip(waiting, done, strict=True):
                book(label, result)
        return results
    free = list(run.hosts)
    busy: dict[ObjectRef[RecipeResult], tuple[ActorHandle, str]] = {}
    while waiting or busy:
        while waiting and free:
            host, label = free.pop(), waiting.pop(0)
            busy[host.recipe.remote(jobs[label])] = (host, label)
        (ready, *_), _ = ray.wait(list(busy), num_returns=1)
        host, label = busy.pop(ready)
        book(label, ray.get(ready))
        free.append(host)
    return results
