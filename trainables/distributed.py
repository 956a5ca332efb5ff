"""One trial on several workers: a Tune function that fits a Ray Train TorchTrainer.

The same `TrialSession` and `TrialRun` as on a ModelHost, with data parallelism over the workers: DDP, or
DeepSpeed's ZeRO through accelerate. Worker `i` of `N` takes rows `i, i + N, ...` of every global batch and
the loss is averaged over the global batch's completion tokens, so the losses do not depend on `N`.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        strategy: `ddp` or `deepspeed`.
        deepspeed_config: Path of a DeepSpeed JSON file (see `clusters/deepspeed`).
    """

    workers: int = 2
    gpus: float = 0
    cpus: float = 1
    accelerator_type: str | None = None
    strategy: str = "ddp"
    deepspeed_config: str | None = None


def data_parallel() -> Parallel:
    """DDP over the current torch.distributed group. A function: only workers import torch."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from trainables.parallel import Parallel

    class DataParallel(Parallel):
        def __init__(self) -> None:
            self.rank, self.world = dist.get_rank(), dist.get_world_size()

        def prepare(self, module: object, optimizer: object) -> tuple[Any, Any]:
            # The base model is frozen and equal everywhere: only the adapter's gradients are exchanged.
            return DistributedDataParallel(module, broadcast_buffers=False), optimizer

        def accumulating(self, module: Any, last: bool) -> contextlib.AbstractContextManager[object]:
            return contextlib.nullcontext() if last else module.no_sync()

        def sum(self, values: Sequence[float]) -> list[float]:
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            total = torch.tensor(list(values), dtype=torch.float64, device=device)
            dist.all_reduce(total)
            return total.tolist()

        def gather(self, value: object) -> list[Any]:
            parts: list[object] = [None] * self.world
            dist.all_gather_object(parts, value)
            return parts

    return DataParallel()


def deepspeed_parallel(config_file: str, max_grad_norm: float) -> Parallel:
    """ZeRO stages 0 to 2 through a DeepSpeed engine around the variant's own optimizer.

    The engine partitions gradients and optimizer state, so a trial cannot be checkpointed part-way here:
    an interrupted one starts again.

    Raises:
        ValueError: DeepSpeed is not installed, or the file asks for stage 3, which partitions the frozen
            base model that evaluation and adapters need whole.
    """
    try:
        import deepspeed
    except ImportError:
        raise ValueError("resources.strategy: deepspeed is not installed; pip install raylora[deepspeed]") from None

    config = json.loads(Path(config_file).read_text())
    stage = int(config.get("zero_optimization", {}).get("stage", 0))
    if stage > 2:
        raise ValueError(f"resources.deepspeed_config: ZeRO stage {stage} in {config_file}; use stage 0, 1 or 2")
    base = type(data_parallel())
    config |= {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_allow_untested_optimizer": True,
    }

    class DeepSpeedParallel(base):  # type: ignore[misc,valid-type]
        checkpoints = False

        def prepare(self, module: object, optimizer: object) -> tuple[Any, Any]:
            self.engine, wrapped, _, _ = deepspeed.initialize(model=module, optimizer=optimizer, config=dict(config))
            return self.engine, wrapped

        def accumulating(self, module: Any, last: bool) -> contextlib.AbstractContextManager[object]:
            module.set_gradient_accumulation_boundary(last)
            return contextlib.nullcontext()

        def backward(self, module: Any, loss: Any) -> None:
            module.backward(loss)

        def step(self, optimizer: object, parameters: object, max_grad_norm: float) -> bool:
            self.engine.step()
            norm = self.engine.get_global_grad_norm()
            return norm is None or math.isfinite(float(norm))

        def zero_grad(self, optimizer: object) -> None:
            self.engine.zero_grad()

    return DeepSpeedParallel()


def _parallel(group: WorkerGroup, setup: TrialSetup) -> Parallel:
    if group.strategy == "deepspeed":
        return deepspeed_parallel(str(group.deepspeed_config), setup.settings.max_grad_norm)
    return data_parallel()


def train_worker(arguments: dict[str, Any]) -> None:
    """Body of a Ray Train worker: one whole trial. Every worker reports, the first one writes."""
    import ray.train

    from trainables.host import quiet_libraries
    from trainables.session import TrialSession, load_base

    quiet_libraries()
    setup: TrialSetup = arguments["setup"]
    parallel = _parallel(arguments["group"], setup)
    knobs = arguments["knobs"]
    model, tokenizer = load_base(setup)
    session = TrialSession(setup, model, tokenizer, parallel=parallel, where="ray-train")
    over = session.begin(knobs, arguments["trial_id"])
    while over is None:
        try:
            metrics = session.advance()
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

    metric = setup.scorer.metric
    worst = {metric: setup.scorer.worst_figures("validation")[metric]}

    def over() -> Ending | None:
        return Journal(setup.run_dir).concluded().get(trial_key(knobs))

    if (ending := over()) is not None:
        tune.report(dict(ending.replay(worst)))
        return
    trial_id = tune.get_context().get_trial_id()
    arguments = {"setup": setup, "group": group, "knobs": knobs, "trial_id": trial_id}
    try:
        _fit(train_worker, arguments, group, f"train-{trial_id}", storage, [TuneReportCallback()])
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
    setup: TrialSetup = arguments["setup"]
    parallel = _parallel(arguments["group"], setup)
    model, tokenizer = load_base(setup)
    for job in arguments["jobs"]:
        result = run_recipe(job, setup, model, tokenizer, parallel)
        if parallel.rank == 0:
            # A Train result keeps only metrics that came with a checkpoint: hand ours over as a file.
            (Path(job.folder) / RESULT_FILE).write_text(json.dumps(result.to_row()))
    ray.train.report({"done": True})


def fit_recipes(jobs: Sequence[RecipeJob], setup: TrialSetup, group: WorkerGroup, storage: str) -> list[RecipeResult]:
    """Train and score recipes of the final stage (`RecipeJob`s), one after the other on one worker group."""
    from trainables.recipe import RecipeResult

    arguments = {"setup": setup, "group": group, "jobs": list(jobs)}
    _fit(recipe_worker, arguments, group, "final", storage, [])
    return [RecipeResult.from_row(json.loads((Path(job.folder) / RESULT_FILE).read_text())) for job in jobs]


def _fit(
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
