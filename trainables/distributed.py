"""One trial on several workers: a Tune function that fits a Ray Train TorchTrainer.

The same `TrialSession` and `TrialRun` as on a ModelHost, with data parallelism over the workers: DDP, PyTorch's
`fully_shard` or DeepSpeed's ZeRO. Worker `i` of `N` takes rows `i, i + N, ...` of every global batch and
the loss is averaged over the global batch's completion tokens, so the losses do not depend on `N`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.exhausted import Crowded, ended_for_memory, oom_kills
from trainables.journal import Knobs
from trainables.protocols import TrialSetup

if TYPE_CHECKING:
    from trainables.parallel import Parallel
    from trainables.recipe import RecipeJob, RecipeResult

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class WorkerGroup:
    """The workers of one trial.

    Args:
        workers: How many.
        gpus: GPUs per worker; 0 trains on CPUs over gloo.
        cpus: CPUs reserved per worker.
        accelerator_type: For example `A100`; None takes any.
        strategy: `ddp`, `fsdp` or `deepspeed`.
        deepspeed_config: Path of a DeepSpeed JSON file (see `clusters/deepspeed`).
    """

    workers: int = 2
    gpus: float = 0
    cpus: float = 1
    accelerator_type: str | None = None
    strategy: str = "ddp"
    deepspeed_config: str | None = None


def make_parallel(group: WorkerGroup, device: str, max_grad_norm: float) -> Parallel:
    """How a worker of the current torch.distributed group shares a trial. A function: only workers import torch.

    Args:
        device: as `TrialSetup` has it. max_grad_norm: as `TrainSettings` has it.

    Raises:
        ValueError: DeepSpeed is not installed.
    """
    from trainables.session import pick_device
    from trainables.workers import DataParallel

    if group.strategy == "deepspeed":
        from trainables.zero import Zero

        return Zero.from_file(str(group.deepspeed_config), max_grad_norm)
    if group.strategy == "fsdp":
        from trainables.fsdp import FullySharded

        return FullySharded(pick_device(device))
    return DataParallel()


def train_worker(arguments: dict[str, Any]) -> None:
    """Body of a Ray Train worker: one whole trial. Every worker reports, the first one writes."""
    import ray.train

    from trainables.host import quiet_libraries
    from trainables.session import TrialSession, load_base

    quiet_libraries()
    setup: TrialSetup = arguments["setup"].here()
    parallel = make_parallel(arguments["group"], setup.device, setup.settings.max_grad_norm)
    knobs = arguments["knobs"]
    model, tokenizer = load_base(setup, parallel.loads_on)
    session = TrialSession(setup, model, tokenizer, parallel=parallel, where="ray-train")
    over = session.begin(knobs, arguments["trial_id"])
    while over is None:
        try:
            metrics = session.advance()
        except Crowded:
            raise  # the group begins again, see `_fit`
        except Exception as error:
            over = session.abandon(knobs, error)
            break
        ray.train.report({**metrics, "replayed": False})
        if metrics["done"]:
            return
    if over.failed:
        # The others wait for this one in an exchange of gradients: the whole group ends.
        raise RuntimeError(over.message)
    ray.train.report(dict(over.replay({})))


def fit_group(knobs: Knobs, setup: TrialSetup, group: WorkerGroup, storage: str) -> None:
    """Tune function: run one trial as a Ray Train worker group and hand its reports on to Tune.

    A trial that the journal lists as over is answered from there; no worker group starts for it. One that fails for a
    reason of its own ends with the worst value, as on a host.
    """
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    from trainables.journal import Ending, Journal, trial_key

    setup = setup.here()
    metric = setup.scorer.metric
    worst = {metric: setup.scorer.worst_figures("validation")[metric]}

    def over() -> Ending | None:
        return Journal(setup.run_dir).concluded().get(trial_key(knobs))

    if (ending := over()) is not None:
        tune.report(dict(ending.replay(worst)))
        return
    trial_id = tune.get_context().get_trial_id()
    arguments = {"group": group, "knobs": knobs, "trial_id": trial_id}
    try:
        _fit(train_worker, arguments, setup, group, f"train-{trial_id}", storage, [TuneReportCallback()])
    except Exception:
        ending = over()
        if ending is None or not ending.failed:
            raise
        tune.report(dict(ending.replay(worst)))


def recipe_worker(arguments: dict[str, Any]) -> None:
    """Body of a Ray Train worker in the final stage."""
    import ray.train

    from trainables.host import quiet_libraries
    from trainables.recipe import run_recipe
    from trainables.session import load_base

    quiet_libraries()
    setup: TrialSetup = arguments["setup"].here()
    parallel = make_parallel(arguments["group"], setup.device, setup.settings.max_grad_norm)
    model, tokenizer = load_base(setup, parallel.loads_on)
    jobs: list[RecipeJob] = arguments["jobs"]
    for job in jobs:
        job = job.within(setup)
        result = run_recipe(job, setup, model, tokenizer, parallel)
        if parallel.rank == 0:
            # A Train result keeps only metrics that came with a checkpoint: hand ours over as a file.
            (Path(job.folder) / RESULT_FILE).write_text(json.dumps(result.to_row()))
            job.keep(setup)
    ray.train.report({"done": True})


def fit_recipes(jobs: Sequence[RecipeJob], setup: TrialSetup, group: WorkerGroup, storage: str) -> list[RecipeResult]:
    """Train and score recipes of the final stage (`RecipeJob`s), one after the other on one worker group."""
    from trainables.recipe import RecipeResult

    _fit(recipe_worker, {"group": group, "jobs": list(jobs)}, setup, group, "final", storage, [])
    for job in jobs:
        job.fetch(setup)
    return [RecipeResult.from_row(json.loads((Path(job.folder) / RESULT_FILE).read_text())) for job in jobs]


def _fit(
    body: Callable[[dict[str, Any]], None],
    arguments: dict[str, Any],
    setup: TrialSetup,
    group: WorkerGroup,
    name: str,
    storage: str,
    callbacks: list[Any],
) -> None:
    """Fit a worker group; where memory runs out at a worker, once more with smaller micro-batches."""
    attempt = 0
    while True:
        before = oom_kills()
        try:
            # A name of its own for each: Ray Train goes on with what it knows of an earlier one.
            _fit_once(
                body, {**arguments, "setup": setup}, group, f"{name}-{attempt}" if attempt else name, storage, callbacks
            )
            return
        except Exception as error:
            tokens = tokens_that_may_fit(error, setup.settings.micro_batch_tokens, oom_kills() > before)
            if tokens is None:
                raise
        attempt += 1
        setup = replace(setup, settings=replace(setup.settings, micro_batch_tokens=tokens))


def tokens_that_may_fit(error: Exception, micro_batch_tokens: int, killed: bool = False) -> int | None:
    """The size of micro-batches that a group may go on with, after an error of Ray Train; None if it is another.

    Args:
        micro_batch_tokens: what it had.
        killed: whether the kernel has meanwhile ended a process for want of memory.
    """
    found = list(getattr(error, "worker_failures", {}).values())
    told = [failure.micro_batch_tokens for failure in found if isinstance(failure, Crowded)]
    if not told and (killed or any(map(ended_for_memory, [error, *found]))):
        told = [micro_batch_tokens // 2]
    return min(told) if told and 0 < min(told) < micro_batch_tokens else None


def _fit_once(
    body: Callable[[dict[str, Any]], None],
    arguments: dict[str, Any],
    group: WorkerGroup,
    name: str,
    storage: str,
    callbacks: list[Any],
) -> None:
    import ray.train
    from ray.train.torch import TorchTrainer

    resources: dict[str, float] = {"CPU": group.cpus}
    if group.gpus:
        resources["GPU"] = group.gpus
    trainer = TorchTrainer(
        body,
        train_loop_config=arguments,
        scaling_config=ray.train.ScalingConfig(
            num_workers=group.workers,
            use_gpu=group.gpus > 0,
            resources_per_worker=resources,
            accelerator_type=group.accelerator_type,
        ),
        run_config=ray.train.RunConfig(name=name, storage_path=storage, callbacks=callbacks),
    )
    trainer.fit()
