"""Fixed cost of a trial: hosted trials against Tune around a TorchTrainer, in one run on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raylora.cluster import connected
from raylora.progress import Progress
from trainables.distributed import WorkerGroup, fit_group
from trainables.hosted import HostedTrial
from trainables.journal import Journal
from trainables.protocols import TrainSettings, TrialSetup


def bench_overhead(*, trials: int = 50, nest_trials: int = 3, quiet: bool = False) -> dict[str, float]:
    """Wall time per trial beyond its own training and evaluation, on the tiny test model and a few steps.

    Args:
        trials: Hosted trials, one at a time on one host. The first, which creates Tune's actor, is left out.
        nest_trials: Trials of the plain nest (a Tune function that fits a one-worker TorchTrainer).

    Returns:
        `warm_s` and `nest_s` (seconds per trial), `ratio` (nest over hosted), `first_s` (the first hosted
        trial), `base_unchanged` (1 if the base model's bits are the same after all trials) and
        `host_growth_mb` (resident memory of the host, after the last trial minus after the tenth part).
    """
    import ray

    from trainables.host import start_hosts, start_pool
    from trainables.testing import ExactMatch, make_tiny_model, make_tiny_tokenizer, tokenised_rows

    progress = Progress(quiet=quiet)
    with connected(), tempfile.TemporaryDirectory() as scratch:
        import pyarrow as pa

        root = Path(scratch)
        make_tiny_model(root / "model")
        rows = tokenised_rows(make_tiny_tokenizer(), 48)
        refs = [ray.put(pa.Table.from_pylist(rows[:32]))], [ray.put(pa.Table.from_pylist(rows[32:]))]

        def setup(name: str) -> TrialSetup:
            (root / name).mkdir()
            return TrialSetup(
                model_folder=str(root / "model"),
                scorer=ExactMatch(),
                settings=TrainSettings(samples=32, checkpoint_every_s=1e9),
                train=refs[0],
                validation=refs[1],
                run_dir=str(root / name),
                dtype="float32",
                threads=1,
            )

        hosted, nest = setup("hosted"), setup("nest")
        (host,) = start_hosts(hosted, 1)
        before = ray.get(host.checksum.remote())
        progress.say(f"hosted: {trials} trials")
        memory: list[float] = []

        def watch(done: int) -> None:
            if done in (max(1, trials // 10), trials):
                memory.append(ray.get(host.resident_mb.remote()))

        started = _search(HostedTrial, {"pool": start_pool([host])}, trials, root / "tune-hosted", watch)
        first_s, warm_s = _overheads(hosted.run_dir, started)
        unchanged = ray.get(host.checksum.remote()) == before
        ray.kill(host)
        progress.say(f"nest: {nest_trials} trials")
        group = WorkerGroup(workers=1, cpus=0.1)
        bound = {"setup": nest, "group": group, "storage": str(root / "ray_train")}
        started = _search(fit_group, bound, nest_trials, root / "tune-nest")
        first_nest, later_nest = _overheads(nest.run_dir, started)
        nest_s = (first_nest + later_nest * (nest_trials - 1)) / nest_trials
    return {
        "warm_s": warm_s,
        "nest_s": nest_s,
        "ratio": nest_s / warm_s,
        "first_s": first_s,
        "base_unchanged": float(unchanged),
        "host_growth_mb": memory[-1] - memory[0],
    }


def _search(
    trainable: object,
    bound: Mapping[str, object],
    trials: int,
    folder: Path,
    watch: Callable[[int], None] | None = None,
) -> float:
    """Run `trials` distinct configurations one after the other; returns the time at which Tune began."""
    from ray import tune

    class Watch(tune.Callback):
        done = 0

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.done += 1
            if watch is not None:
                watch(self.done)

    knobs = {
        "variant": "lora",
        "rank": 4,
        "alpha_ratio": 2,
        "batch_size": 8,
        "dropout": 0.0,
        "learning_rate": tune.grid_search([1e-4 * (k + 1) for k in range(trials)]),
    }
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, **bound), {"cpu": 0.001}),
        param_space=knobs,
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", max_concurrent_trials=1, reuse_actors=trainable is HostedTrial
        ),
        run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=0, callbacks=[Watch()]),
    )
    started = time.time()
    results = tuner.fit()
    if results.errors:
        raise RuntimeError(f"a trial of the benchmark failed: {results.errors[0]}")
    return started


def _overheads(run_dir: str, started: float) -> tuple[float, float]:
    """Seconds beyond training and evaluation of the first trial, and the mean of the later ones."""
    ends = list(Journal(run_dir).concluded().values())
    times = [started, *(end.time for end in ends)]
    own = [(end.metrics["train_s"] or 0.0) + (end.metrics["eval_s"] or 0.0) for end in ends]
    costs = [b - a - o for a, b, o in zip(times[:-1], times[1:], own, strict=True)]
    return costs[0], sum(costs[1:]) / max(1, len(costs) - 1)
