"""Which runs have an engine, and with what it is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raylora.build import max_length, threads_per_host
from raylora.data.tokenise import model_positions, tokenizer_files
from raylora.errors import UserError
from raylora.run.engine.actor import Engine, EngineSetup
from raylora.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ray.actor import ActorHandle

    from raylora.tasks.scoring import Scoring


def start_engine(
    spec: Spec,
    scoring: Scoring,
    splits: Iterable[str],
    *,
    model: str,
    folder: Path,
    rank: int,
    run_dir: str,
    tokenizer: str = "",
) -> ActorHandle | None:
    """The actor that writes the answers of a run, which loads nothing yet; None where hosts do, or nobody reads any.

    Args:
        splits: those that are scored.
        model: as `raylora.models.resolve` takes it, and `folder` where it lies here.
        rank: the largest of the adapters that are expected.
        run_dir: a folder that all nodes see.
        tokenizer: folder of another tokenizer than the model's.

    Raises:
        UserError: the cluster has no GPUs left for it.
    """
    import ray

    if spec.evaluate.engine != "vllm" or not any("texts" in scoring.needs(split) for split in splits):
        return None
    gpus = spec.resources.gpus_per_host if spec.evaluate.gpus is None else spec.evaluate.gpus
    _check_room(spec, gpus)
    positions = model_positions(tokenizer_files(folder))
    length = max_length(spec, str(folder)) + scoring.sampling.max_new_tokens
    setup = EngineSetup(
        model=model,
        tokenizer=tokenizer,
        length=min(length, positions or length),
        rank=rank,
        gpus=gpus,
        run_dir=run_dir,
        seed=spec.seed,
        threads=threads_per_host(spec),
    )
    kind = {"accelerator_type": spec.resources.accelerator_type} if gpus and spec.resources.accelerator_type else {}
    actor: ActorHandle = ray.remote(Engine).options(num_cpus=0, num_gpus=gpus, max_restarts=-1, **kind).remote(setup)
    return actor


def load_engine(engine: ActorHandle, spec: Spec) -> str:
    """Has it load the model, so that what is wrong with that is known; vLLM's version. Errors: see `Engine.write`."""
    import ray

    return str(ray.get(engine.start.remote(spec.dtype)))


def _check_room(spec: Spec, gpus: float) -> None:
    """An actor that finds no GPU would be waited for without end."""
    import ray

    there = ray.cluster_resources().get("GPU", 0.0)
    resources = spec.resources
    if gpus and resources.hosts == "auto" and resources.gpus_per_host:
        raise UserError(
            f"evaluate.gpus = {gpus:g} with resources.hosts = 'auto', which takes every GPU; set resources.hosts to a "
            "number",
            field="evaluate.gpus",
            value=gpus,
        )
    hosts = resources.gpus_per_host * (resources.workers if spec.mode == "train" else resources.at_a_time)
    if gpus and hosts + gpus > there:
        raise UserError(
            f"evaluate.gpus = {gpus:g}: the hosts take {hosts:g} of {there:g} GPUs; set evaluate.gpus and "
            "resources.gpus_per_host to shares that fit together, such as 0.4 and 0.5",
            field="evaluate.gpus",
            value=gpus,
        )
