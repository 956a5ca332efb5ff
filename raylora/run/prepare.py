"""From a spec to all that its trials share: model, data, hosts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.build import build_data, build_task, how_loaded, threads_per_host, train_settings, worker_group
from raylora.progress import Progress
from raylora.run.checkpoint import check_checkpoint
from raylora.run.crew import Crew, alive, counted
from raylora.run.engine.start import load_engine, start_engine
from raylora.run.fit import fit_space
from raylora.run.folder import CURVATURE, DATA
from raylora.run.heads import labels_told
from raylora.run.plan.packs import fitting_pack
from raylora.run.planned import estimated, plan_run
from raylora.run.rehearsal import first_rows, first_test_rows, rehearse
from raylora.run.stored import is_stored
from raylora.spec import Spec
from trainables.distributed import WorkerGroup
from trainables.files import replace_text
from trainables.journal import Knobs
from trainables.protocols import TrainSettings, TrialSetup
from trainables.rows import Rows
from trainables.store import told
from trainables.variants import declared, start_actors

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from raylora.data.build import Prepared
    from raylora.run.keeper import Keeper
    from raylora.run.tracking import Tracking
    from raylora.tasks import Task
    from searchers.space import Space


@dataclass
class Run:
    """A run in progress: what the search and the final stage share."""

    spec: Spec
    folder: Path
    progress: Progress
    task: Task
    data: Prepared
    setup: TrialSetup
    group: WorkerGroup | None
    hosts: list[ActorHandle] = field(default_factory=list)
    # Which those belong to where the spec leaves their number to the cluster.
    crew: Crew | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    space: Space | None = None
    keeper: Keeper | None = None
    latest: ActorHandle | None = None
    pool: ActorHandle | None = None
    tracking: Tracking | None = None
    # What is tried, and nothing else; None where the searcher proposes.
    recipes: Sequence[Knobs] | None = None

    @property
    def trials(self) -> int:
        """Trials to finish: as many as the spec says, or as the fitted space has configurations."""
        return min(self.spec.search.trials, len(self.space)) if self.space else self.spec.search.trials

    @property
    def base_name(self) -> str:
        """What the adapters name as their base: plain PEFT opens them."""
        from raylora.models import base_for_adapters

        return base_for_adapters(self.spec.model)


def prepare(spec: Spec, folder: Path, quiet: bool, keeper: Keeper | None = None, *, changing: bool = False) -> Run:
    """Resolve the model, build the data once, start the hosts, and with a budget plan what they will do.

    Args:
        changing: whether hosts will be put under other setups (`trainables.host.change_setup`), as a plan does.
    """
    from clusters.storage import check_cluster_storage
    from raylora import models

    place = told(folder)
    check_cluster_storage(place)
    if keeper is not None and keeper.plan is not None:
        spec = keeper.plan.apply(spec)
    task = build_task(spec)
    progress = Progress(task.metric, quiet)
    progress.say(f"run folder: {place}" + (f"; working folder: {folder}" if is_stored(place) else ""))
    progress.say(f"base model: {spec.model}")
    for note in task.notes:
        progress.say(note)
    model_folder = models.resolve(spec.model, quiet=quiet)
    check_checkpoint(spec.model, model_folder, spec.task.head, spec.quantization)
    prepared = build_data(spec, task, str(model_folder), progress.say)
    progress.say(f"data: {rows_kept(prepared.counts)}")
    for note in prepared.notes:
        progress.say(f"data: {note}")
    about = {"counts": prepared.counts, "notes": prepared.notes, **labels_told(task.head)}
    (folder / DATA).write_text(json.dumps(about, indent=2) + "\n")
    if spec.resources.pack == "auto" and keeper is None:
        spec = spec.packed(fitting_pack(counted(spec), estimated(spec, task, prepared, str(model_folder))))
    settings = train_settings(spec, prepared.counts["proxy"])
    ratios: dict[str, float] = {}
    if spec.search.knowledge.curvature and set(spec.space.variant) != {"lora"}:
        # Before the hosts, which would hold the devices.
        ratios = measured_ratios(spec, folder, str(model_folder), settings, prepared.proxy, progress)
    setup = TrialSetup(
        model_folder=spec.model if not Path(spec.model).is_dir() else str(model_folder),
        resolve_model=models.resolve,
        scorer=task.scoring,
        settings=settings,
        train=prepared.proxy,
        validation=prepared.validation,
        run_dir=str(folder),
        **how_loaded(spec),
        threads=threads_per_host(spec),
        deadline=math.inf if keeper is None or keeper.plan is None or not keeper.bounded else keeper.deadline(),
        # With a budget the plan says how many.
        pack=1 if spec.resources.pack == "auto" else spec.resources.pack,
        head=task.head,
        store=place if is_stored(place) else "",
    )
    # Their checkpoints lie with those of the trials: on shared storage on a cluster, gone when the run is finished.
    variants = {*spec.space.variant, spec.default_recipe.variant}
    setup = replace(setup, actors=start_actors(variants, folder / "checkpoints"))
    splits = ["validation", *(prepared.tests if spec.final.enabled else ())]
    engine = start_engine(
        spec,
        task.scoring,
        splits,
        model=setup.model_folder,
        folder=Path(model_folder),
        rank=max(*spec.space.rank, spec.default_recipe.rank),
        run_dir=str(folder),
    )
    setup = replace(setup, engine=engine)
    run = Run(spec, folder, progress, task, prepared, setup, worker_group(spec), ratios=ratios, keeper=keeper)
    if run.group is None:
        from trainables.host import start_hosts, start_latest

        progress.say(f"hosts: loading the model on {counted(spec).resources.hosts}")
        run.latest = start_latest() if keeper is not None or changing else None
        packs = spec.resources.pack != 1
        if spec.resources.hosts == "auto":
            run.crew = start_crew(run, packs)
            run.hosts = run.crew.hosts
        else:
            run.hosts = start_hosts(setup, spec.resources.hosts, latest=run.latest, packs=packs, **host_options(spec))
        # The search needs it, and its import takes seconds: those in which the hosts load the model.
        import ray.tune  # noqa: F401
    elif spec.resources.hosts == "auto":
        run.crew = start_crew(run, packs=False)
    try:
        if engine is not None:
            progress.say("answers: vLLM loads the model")
            progress.say(f"answers: vLLM {load_engine(engine, spec)} writes them")
        tests = first_test_rows(task) if spec.final.enabled else {}
        rehearse(task.scoring, {**first_rows({"validation": prepared.validation}), **tests}, run.hosts)
        if keeper is not None and keeper.plan is None:
            planned = plan_run(
                spec,
                keeper,
                task=task,
                data=prepared,
                setup=setup,
                model_folder=str(model_folder),
                hosts=run.hosts,
                latest=run.latest,
                progress=progress,
            )
            run.spec, run.data, run.setup = planned.spec, planned.data, planned.setup
        if run.hosts and run.setup.pack > 1:
            progress.say(packing(run))
        fitted = fit_space(run.spec, run.setup.settings, str(model_folder), run.hosts, task.head)
        run.space = fitted.space
        if fitted.left_out:
            progress.say(fitted.left_out)
    except BaseException:
        stop_actors(run)
        raise
    return run


def start_crew(run: Run, packs: bool) -> Crew:
    """The crew of a run whose spec says `resources.hosts: auto`, with its first hosts.

    Args:
        packs: whether they can train several trials together.

    Raises:
        RayError: the model cannot be loaded anywhere.
    """
    import ray

    from clusters.storage import check_cluster_storage
    from trainables.host import start_host

    here = ray.get_runtime_context().get_node_id()

    def start(setup: TrialSetup, number: int, node: str | None) -> ActorHandle:
        return start_host(setup, number, latest=run.latest, packs=packs, node=node, **host_options(run.spec))

    def check(node: Mapping[str, Any]) -> None:
        own = [one for one in alive() if one["NodeID"] == here]
        check_cluster_storage(told(run.folder), nodes=[*own, node])

    made = start if run.group is None else None
    crew = Crew(run.spec, made, setup=run.setup, check=check, say=run.progress.say)
    try:
        crew.begin()
    except BaseException:
        for host in crew.hosts:
            ray.kill(host)
        crew.close()
        raise
    return crew


def host_options(spec: Spec) -> dict[str, Any]:
    """What each host asks of Ray."""
    resources = spec.resources
    options = {"accelerator_type": resources.accelerator_type} if resources.accelerator_type else {}
    cpus = resources.cpus_per_host if resources.gpus_per_host else 0
    return {"cpus": cpus or 0, "gpus": resources.gpus_per_host, **options}


def measured_ratios(
    spec: Spec, folder: Path, model_folder: str, settings: TrainSettings, proxy: Rows, progress: Progress
) -> dict[str, float]:
    """Best rates of the space's variants over LoRA's, from curvature; kept in the run's folder for a resumed run."""
    from raylora.curvature import measure as curvature
    from raylora.curvature.figures import read_figures

    file = folder / CURVATURE
    if not file.exists():
        figures = curvature.measure_on_cluster(spec, model_folder, settings, proxy, progress.say)
        # In one step: a run that dies while it writes measures again.
        replace_text(file, json.dumps(figures, indent=2))
    ratios = curvature.prior_ratios(read_figures(file))
    told = ", ".join(f"{name} {ratio:.2g}" for name, ratio in ratios.items())
    progress.say(f"expected best rates, as multiples of LoRA's: {told or 'nothing but LoRA was measured'}")
    return ratios


def packing(run: Run) -> str:
    """What is trained together and what is not, in a line."""
    import ray

    told = f"hosts: up to {run.setup.pack} trials at a time on each"
    reason = ray.get(run.hosts[0].unshared.remote())
    if reason is not None:
        return f"{told}, in turns: {reason}"
    alone = [name for name in run.spec.space.variant if not declared(name).shares_pass]
    return f"{told}, in passes together" + (f"; in passes of their own: {', '.join(alone)}" if alone else "")


def rows_kept(counts: Mapping[str, int]) -> str:
    """The row counts in words; what was dropped only where something was."""
    told = [f"{counts[name]} {name}" for name in ("train", "proxy", "validation")]
    told += [f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if "_dropped_" in name and n]
    return ", ".join(told) + " rows"


def stop_actors(run: Run) -> None:
    """End the actors that `prepare` and the search started."""
    import ray

    if run.crew is not None:
        run.crew.close()
    alone: list[Any] = [actor for actor in (run.latest, run.pool, run.setup.engine) if actor is not None]
    for actor in [*run.hosts, *run.setup.actors.values(), *alone]:
        ray.kill(actor)
