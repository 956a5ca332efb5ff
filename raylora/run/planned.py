"""From a budget to the plan of a run: what a few steps cost, what that allows, and the spec that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raylora.build import build_data, threads_per_host, train_settings
from raylora.progress import Progress
from raylora.run.crew import counted
from raylora.run.keeper import Keeper
from raylora.run.plan.calibrate import SHARE, calibrated
from raylora.run.plan.cost import CostModel
from raylora.run.plan.estimate import estimate
from raylora.run.plan.packs import with_pack
from raylora.run.plan.planner import make_plan
from raylora.spec import Spec
from raylora.spec.budget import duration
from trainables.protocols import TrialSetup

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from raylora.data.build import Prepared
    from raylora.tasks import Task

# Seconds after which more points teach little, however large the budget.
CALIBRATION_AT_MOST_S = 180.0


@dataclass(frozen=True)
class Planned:
    """What follows from a plan: the spec with everything filled in, its data, and the setup of its trials."""

    spec: Spec
    data: Prepared
    setup: TrialSetup


def plan_run(
    spec: Spec,
    keeper: Keeper,
    *,
    task: Task,
    data: Prepared,
    setup: TrialSetup,
    model_folder: str,
    hosts: Sequence[ActorHandle],
    latest: ActorHandle | None,
    progress: Progress,
) -> Planned:
    """Find out what things cost, plan, tell the plan, and put the hosts under it.

    Args:
        spec: with a budget, as the user wrote it. data, setup: as it says without a plan.
        hosts: running ModelHosts, the first of which takes a few steps; without any, costs are estimated.
        latest: see `trainables.host.change_setup`.
    """
    cost = _costs(spec, keeper, task, data, model_folder, hosts, progress)
    plan = make_plan(counted(spec), data.counts, cost, left_s=keeper.left_s, chosen=keeper.chosen)
    keeper.settle(plan, with_pack(spec, cost, plan.pack))
    for line in plan.lines():
        progress.say(line)
    spec = plan.apply(spec)
    data = build_data(spec, task, model_folder)
    setup = replace(
        setup,
        settings=train_settings(spec, data.counts["proxy"]),
        train=data.proxy,
        validation=data.validation,
        deadline=keeper.deadline(),
        pack=plan.pack,
    )
    if hosts and latest is not None:
        from trainables.host import change_setup

        change_setup(hosts, latest, setup)
    return Planned(spec, data, setup)


def _costs(
    spec: Spec,
    keeper: Keeper,
    task: Task,
    data: Prepared,
    model_folder: str,
    hosts: Sequence[ActorHandle],
    progress: Progress,
) -> CostModel:
    """Measured on the first host; where there is none, or it fails, estimated."""
    from ray.exceptions import RayError

    if hosts:
        limit = min(SHARE * keeper.budget_s, 0.15 * max(0.0, keeper.left_s), CALIBRATION_AT_MOST_S)
        progress.say(f"calibration: a few steps and one evaluation (about {duration(limit)} at most)")
        try:
            cost, spent = calibrated(hosts[0], spec, limit)
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            progress.say(f"calibration: failed, so costs are estimated ({reason})")
        else:
            progress.say(
                f"calibration: {duration(spent)}; a step on 8 rows takes {cost.step_seconds('lora', 8, 8):.2g} s, "
                f"scoring a row {cost.evaluation_row_s:.2g} s"
            )
            return cost
    return estimated(spec, task, data, model_folder)


def answer_tokens(task: Task) -> int:
    """The longest answer that scoring a trial generates, in tokens: none where no metric reads text."""
    return task.max_new_tokens if "texts" in task.scoring.needs("validation") else 0


def estimated(spec: Spec, task: Task, data: Prepared, model_folder: str) -> CostModel:
    """Costs from the model's shape and this machine, in a process of its own: this one imports no torch."""
    import ray

    counts, placement = data.counts, spec.space.placement
    cost: CostModel = ray.get(
        ray.remote(estimate)
        .options(num_cpus=0)
        .remote(
            model_folder,
            tokens_per_row=counts["train_tokens"] / max(1, counts["train"]),
            new_tokens=answer_tokens(task),
            threads=threads_per_host(spec),
            dtype=spec.dtype,
            placement=placement if isinstance(placement, str) else tuple(placement),
            head=task.head,
            recompute=spec.train.gradient_checkpointing,
            quantization=spec.quantization,
        )
    )
    workers = spec.resources.workers
    return replace(
        cost,
        token_s=cost.token_s / workers,
        rank_token_s=cost.rank_token_s / workers,
        evaluation_row_s=cost.evaluation_row_s / workers,
    )
