"""The final stage of a run: base, default and best recipe, trained on the full data and scored on test."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from raylora.data.split import TEST_SEED
from raylora.errors import RunFailed
from raylora.metrics.statistics import mean_and_error
from raylora.progress import Standing
from raylora.run.prepare import Run
from raylora.run.stored import RAY_TRAIN
from raylora.run.summary import FinalSummary, MoreFigures, RecipeSummary
from raylora.run.trials import with_both_alphas
from raylora.run.trouble import why
from trainables.exhausted import ended_for_memory, oom_kills
from trainables.journal import ERRORS, Journal, Knobs, Metrics, log_traceback, trial_key
from trainables.rows import Rows
from trainables.store import told

# Times that the host of a job may die before the job has failed.
_DEATHS = 3

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from raylora.tasks.scoring import Scoring
    from trainables.recipe import RecipeJob, RecipeResult


def final_stage(run: Run, best: Knobs) -> FinalSummary | None:
    """Score the untouched base, and the default and the best recipe trained on the full data.

    This alone reads the test split. Each piece is journaled, so a resumed run does only what is missing. Within a
    budget, it is as large as what is left of it allows; None where that is nothing.
    """
    from trainables.recipe import RecipeJob

    spec, name, metric = run.spec, run.base_name, run.task.metric
    read = {split: one() for split, one in run.data.tests.items()}
    tests = {split: rows for split, (rows, _) in read.items()}
    leaked, count = (sum(counts[name] for _, counts in read.values()) for name in ("test_prompts_in_train", "test"))
    if leaked:
        run.progress.say(f"data: {leaked} of {count} test rows have a prompt that is also trained on")
    samples, seeds = spec.final.budget(run.data.counts["train"]), range(spec.final.seeds)
    validation = run.data.validation
    if run.keeper is not None:
        share = run.keeper.final_share(best, run.data.counts["train"], len(validation), count)
        if share is None:
            run.progress.say("final stage: left out, for nothing is left of the budget")
            return None
        for note in share.notes:
            run.progress.say(f"final stage: {note}, to keep to the budget")
        samples, seeds = share.samples, range(share.seeds)
        validation = sample_rows(validation, share.validation_rows, TEST_SEED)
        tests = part_of(tests, share.test_rows)
        count = sum(len(rows) for rows in tests.values())
    everything = {"validation": validation, **tests}
    final = run.folder / "final"
    jobs = {}
    recipes = {"default": spec.recipe_to_knobs(), "best": dict(best)}
    same = trial_key(recipes["default"]) == trial_key(best)
    trained = {"best": recipes["best"]} if same else recipes
    for k in seeds:
        for label, knobs in trained.items():
            jobs[f"{label}-{k}"] = RecipeJob(
                folder=str(final / f"{label}-{k}"),
                evaluate_on=everything,
                knobs=knobs,
                train=run.data.train,
                samples=samples,
                seed=spec.seed + k,
                base_name=name,
            )
    # Last: should the time run out, the table still has what is compared.
    jobs["base"] = RecipeJob(folder=str(final / "base"), evaluate_on=tests)
    run.progress.say(f"final stage: base, default and best recipe; {samples} samples, {len(seeds)} seed(s)")
    with run.progress.watching(run.folder, partial(_standing, run)):
        results = _run_jobs(run, jobs)
    if same:
        for k in seeds:
            results[f"default-{k}"] = results[f"best-{k}"]
            shutil.copytree(final / f"best-{k}", final / f"default-{k}", dirs_exist_ok=True)
    scoring = run.task.scoring
    base = [results["base"]]
    test, test_se = headline(base, list(tests), scoring)
    summary: FinalSummary = {
        "base": {"test": test, "test_se": test_se, **figures(base, scoring)},
        "default": _entry(recipes["default"], [results[f"default-{k}"] for k in seeds], scoring),
        "best": _entry(recipes["best"], [results[f"best-{k}"] for k in seeds], scoring),
        "test_rows": count,
        "test_prompts_in_train": leaked,
    }
    sign = 1 if run.task.mode == "max" else -1
    chosen = max(seeds, key=lambda k: sign * _score(results[f"best-{k}"], "validation", metric))
    source = final / f"best-{chosen}" / "adapter"
    if source.is_dir():
        shutil.rmtree(run.folder / "adapter", ignore_errors=True)
        shutil.copytree(source, run.folder / "adapter")
    return summary


def _standing(run: Run) -> Standing:
    return Standing("final stage", left_s=None if run.keeper is None else run.keeper.shown_left_s)


def part_of(tests: Mapping[str, Rows], wanted: int) -> dict[str, Rows]:
    """About `wanted` rows of all test sets together, the same part of each."""
    part = wanted / sum(len(rows) for rows in tests.values())
    return {split: sample_rows(rows, max(1, round(part * len(rows))), TEST_SEED) for split, rows in tests.items()}


def sample_rows(rows: Rows, count: int, seed: int) -> Rows:
    """At most `count` of the rows, drawn with the seed, in their order."""
    if count >= len(rows):
        return rows
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])
    return Rows(rows.parts, np.array([rows.position(int(i)) for i in drawn]))


def _score(result: RecipeResult, split: str, metric: str) -> float:
    value = result.scores[split].get(metric)
    return math.nan if value is None else value


def _entry(knobs: Knobs, results: Sequence[RecipeResult], scoring: Scoring) -> RecipeSummary:
    """A recipe's scores over the seeds that it was trained under."""
    tests = [split for split in results[0].scores if split != "validation"]
    (validation, validation_se), (test, test_se) = (
        headline(results, splits, scoring) for splits in (["validation"], tests)
    )
    return {
        "config": with_both_alphas(knobs),
        "validation": validation,
        "validation_se": validation_se,
        "test": test,
        "test_se": test_se,
        **figures(results, scoring),
    }


def headline(results: Sequence[RecipeResult], splits: Sequence[str], scoring: Scoring) -> tuple[float, float | None]:
    """The one figure of some splits and its standard error: of several test sets, the mean over them."""
    told = [over_seeds(results, split, scoring.headline(split)) for split in splits]
    mean = sum(value for value, _ in told) / len(told)
    errors = [error for _, error in told if error is not None]
    return mean, math.sqrt(sum(error**2 for error in errors)) / len(told) if len(errors) == len(told) else None


def over_seeds(results: Sequence[RecipeResult], split: str, name: str) -> tuple[float, float | None]:
    """A figure's mean over the seeds and its standard error: over the rows of the split, or over several seeds."""
    mean, error = mean_and_error([_score(result, split, name) for result in results])
    if error is None:
        plain, bracket, group = name.partition("[")
        error = results[0].scores[split].get(f"{plain}_se{bracket}{group}")
    return mean, error


def figures(results: Sequence[RecipeResult], scoring: Scoring) -> MoreFigures:
    """Every metric on every split, where there is more than the headline: `{split: {name: [value, error]}}`."""
    found = {
        split: {name: over_seeds(results, split, name) for name in scores if is_figure(name, scores)}
        for split, scores in results[0].scores.items()
    }
    if set(found) <= {"validation", "test"} and all(list(one) == [scoring.metric] for one in found.values()):
        return {}
    return {"metrics": {split: {name: list(pair) for name, pair in one.items()} for split, one in found.items()}}


def is_figure(name: str, scores: Metrics) -> bool:
    """Whether it is a metric, and no error of one, nor what is told of every evaluation."""
    return "_se[" not in name and not name.endswith("_se") and (f"{name}_se" in scores or "[" in name or "." in name)


def _timed(run: Run, job: RecipeJob, waiting: Sequence[str]) -> RecipeJob:
    """The job with its deadline, its part of what is left of the budget."""
    if run.keeper is None or job.knobs is None:
        return job
    rounds = math.ceil((1 + sum(label != "base" for label in waiting)) / len(run.hosts))
    validation = len(job.evaluate_on.get("validation", ()))
    test = sum(len(rows) for split, rows in job.evaluate_on.items() if split != "validation")
    return replace(job, deadline=run.keeper.job_deadline(rounds, validation, test))


def _run_jobs(run: Run, jobs: Mapping[str, RecipeJob]) -> dict[str, RecipeResult]:
    """Results of the final stage's jobs; those journaled already are read.

    Raises:
        RunFailed: some of them failed; the others are journaled.
    """
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
        jobs[label].fetch(run.setup)
        journal.append("final", identity[label], label=label, result=result.to_row())
        results[label] = result
        told = ", ".join(
            f"{name} {_score(result, split, name):.4f} on {split.partition('.')[2] or split}"
            for split in run.data.tests
            for name in [run.task.scoring.headline(split)]
        )
        run.progress.say(f"  {label}: {told}")

    if run.group is not None:
        from trainables.distributed import fit_recipes

        if waiting:
            storage = f"{told(run.folder)}/{RAY_TRAIN}"
            try:
                done = fit_recipes([jobs[label] for label in waiting], run.setup, run.group, storage)
            except Exception as error:  # Ray Train raises its own, and what its workers did
                log_traceback(run.folder, "final stage", error)
                raise _unfinished(run, {waiting[0]: why(error)}) from error
            for label, result in zip(waiting, done, strict=True):
                book(label, result)
        return results
    failed = _on_hosts(run, {label: jobs[label] for label in waiting}, book)
    if failed:
        raise _unfinished(run, failed)
    return results


def _on_hosts(run: Run, jobs: Mapping[str, RecipeJob], book: Callable[[str, RecipeResult], None]) -> dict[str, str]:
    """Do the jobs side by side over the hosts; those that failed, each with why.

    A job whose host died is done again, on it once it is back, or on another, with half the micro-batch where memory
    had run out.
    """
    import ray
    from ray.exceptions import ActorUnschedulableError, RayActorError, RayError

    waiting, free = list(jobs), list(run.hosts)
    failed: dict[str, str] = {}
    deaths: Counter[str] = Counter()
    halvings: Counter[str] = Counter()
    busy: dict[ObjectRef[RecipeResult], tuple[ActorHandle, str, int]] = {}
    while waiting or busy:
        while waiting and free:
            host, label = free.pop(), waiting.pop(0)
            run.progress.say(f"  {label}: {'scoring' if jobs[label].knobs is None else 'training'} ...")
            job = replace(_timed(run, jobs[label], waiting), halvings=halvings[label])
            busy[host.recipe.remote(job)] = (host, label, oom_kills())
        if not busy:
            return failed | dict.fromkeys(waiting, "no host is left")
        (ready, *_), _ = ray.wait(list(busy), num_returns=1)
        host, label, kills = busy.pop(ready)
        try:
            book(label, ray.get(ready))
            free.append(host)
            continue
        except RayActorError as error:
            deaths[label] += 1
            halvings[label] += ended_for_memory(error) or oom_kills() > kills
            problem: RayError = error
            if _is_back(host):
                free.append(host)
            if (free or busy) and deaths[label] < _DEATHS:
                run.progress.say(f"  {label}: its host died ({why(error)}); once more")
                waiting.insert(0, label)
                continue
        except ActorUnschedulableError as error:
            problem = error
            if free or busy:
                waiting.insert(0, label)
                continue
        except RayError as error:
            problem = error
            free.append(host)
        log_traceback(run.folder, label, problem)
        failed[label] = why(problem)
        run.progress.say(f"  {label}: failed ({failed[label]})")
    return failed


def _is_back(host: ActorHandle) -> bool:
    from ray.exceptions import ActorUnschedulableError, RayActorError

    from trainables.hosted import await_host

    try:
        await_host(host)
    except (RayActorError, ActorUnschedulableError):  # the second: its node has left
        return False
    return True


def _unfinished(run: Run, failed: Mapping[str, str]) -> RunFailed:
    """What is said of a final stage of which some jobs failed: the trials and the other jobs are kept."""
    label, message = next(iter(failed.items()))
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return RunFailed(
        f"final stage: {label} failed{more}: {message}; {run.folder / ERRORS} has the traceback, and "
        f"`raylora finish {told(run.folder)}` does what is missing",
        field="final",
    )
