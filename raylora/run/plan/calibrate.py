"""A model of costs from a few steps on a running host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raylora.run.plan.cost import CostModel, StepPoint, fit
from raylora.run.plan.memory import Shape
from raylora.spec import Spec

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from trainables.calibration import Calibration

# The part of a budget that finding out what things cost may take.
SHARE = 0.08


def points(spec: Spec) -> tuple[list[int], list[int]]:
    """Two ranks and two batch sizes of the spec's space: small ones, for a step on a large batch says little more."""
    ranks = sorted(spec.space.rank)
    # The largest rank that is not out of all proportion to the default.
    high = max((rank for rank in ranks if rank <= 64), default=ranks[0])
    low = min(ranks, key=lambda rank: abs(rank - spec.default_recipe.rank))
    batches = sorted(spec.space.batch_size)
    return sorted({low, high}), sorted({min(batches[0], 2), 8})


def cost_model(calibration: Mapping[str, Any], recompute: bool = False) -> CostModel:
    """From what a host measured (a `Calibration`) to a model of costs; `recompute`: with gradient checkpointing."""
    names = ("parameters", "layers", "hidden", "vocabulary", "adapter_per_rank", "weight_bytes")
    return fit(
        Shape(**{name: calibration[name] for name in names}),
        [StepPoint(**step) for step in calibration["steps"]],
        tokens_per_row=calibration["tokens_per_row"],
        evaluation_row_s=calibration["evaluation_row_s"],
        attach_s=calibration["attach_s"],
        resident_gb=calibration["resident_gb"],
        available_gb=calibration["available_gb"],
        recompute=recompute,
    )


def calibrated(host: ActorHandle, spec: Spec, limit_s: float) -> tuple[CostModel, float]:
    """The costs on that host, and the seconds that it took to find out.

    Args:
        host: a running ModelHost with the spec's rows.
        limit_s: seconds that this should take at most; the cheapest point is measured in any case.
    """
    import ray

    measured: Calibration = ray.get(host.calibrate.remote(*points(spec), limit_s))
    return cost_model(measured, spec.train.gradient_checkpointing), measured["spent_s"]
