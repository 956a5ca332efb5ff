"""The final stage of a run: base, default and best recipe, trained on the full data and scored on test."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from raylora.run.prepare import Run
from raylora.run.trials import with_both_alphas
from raylora.statistics import mean_and_error
from trainables.journal import Journal, trial_key


def final_stage(run: Run, best: Mapping[str, Any]) -> dict[str, Any]:
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
