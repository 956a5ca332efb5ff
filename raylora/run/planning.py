"""The plan of a run that is not started."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from raylora.build import build_data, build_task, how_loaded, threads_per_host, train_settings
from raylora.cluster import connected
from raylora.progress import Progress
from raylora.run.crew import counted
from raylora.run.plan.calibrate import SHARE, calibrated
from raylora.run.plan.planner import as_told, make_plan
from raylora.run.planned import CALIBRATION_AT_MOST_S, estimated
from raylora.spec import Spec
from trainables.protocols import TrialSetup


def plan_only(spec: Spec, *, calibrate: bool = False, quiet: bool = False) -> dict[str, Any]:
    """What `tune` would do with the spec; reads the data, and trains nothing unless `calibrate` asks for a few steps.

    Returns:
        `plan` (see `raylora.run.plan.planner.Plan`), `cost` (see `raylora.run.plan.cost.CostModel`), `rows` by
        split, and `lines`, the plan in words.

    Raises:
        UserError: what is wrong with the model or the data.
    """
    from raylora import models

    started = time.monotonic()
    task = build_task(spec)
    progress = Progress(task.metric, quiet)
    progress.say(f"base model: {spec.model}")
    folder = str(models.resolve(spec.model, quiet=quiet))
    with connected():
        reckoned = counted(spec)
        data = build_data(spec, task, folder, progress.say)
        if calibrate and spec.mode == "hosted":
            from trainables.host import start_hosts

            limit = (
                CALIBRATION_AT_MOST_S if spec.budget_s is None else min(CALIBRATION_AT_MOST_S, SHARE * spec.budget_s)
            )
            progress.say(f"calibration: a few steps and one evaluation (about {limit:.0f} s at most)")
            with tempfile.TemporaryDirectory() as scratch:
                setup = TrialSetup(
                    model_folder=folder,
                    scorer=task.scoring,
                    settings=train_settings(spec, data.counts["proxy"]),
                    train=data.proxy,
                    validation=data.validation,
                    run_dir=scratch,
                    **how_loaded(spec),
                    threads=threads_per_host(spec),
                    head=task.head,
                )
                (host,) = start_hosts(setup, 1, gpus=spec.resources.gpus_per_host)
                cost, _ = calibrated(host, spec, limit)
        else:
            progress.say("costs: estimated from the model's shape and this machine")
            cost = estimated(spec, task, data, folder)
    if spec.budget_s is None:
        plan = as_told(reckoned, data.counts, cost)
    else:
        # What came until here a run does too.
        plan = make_plan(reckoned, data.counts, cost, left_s=spec.budget_s - (time.monotonic() - started))
    lines = [f"{Path(str(spec.task.path)).name if spec.task.path else spec.task.name} on {spec.model}", *plan.lines()]
    return {"plan": plan.to_dict(), "cost": cost.to_dict(), "rows": dict(data.counts), "lines": lines}
