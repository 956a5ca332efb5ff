"""How the learning rate goes over a run: a linear warm-up, then one of these down to 0, or none."""

from __future__ import annotations

import math
from typing import Literal, get_args

Schedule = Literal["cosine", "linear", "constant"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def rate_factor(step: int, steps: int, warmup_ratio: float, schedule: Schedule = "cosine") -> float:
    """Multiplier of the rate at optimizer step `step` (from 0) of `steps`.

    `cosine` is half a cosine, `linear` a straight line, both to 0 after the last step; `constant` stays at 1. The
    warm-up is a share of the steps, and its first step is not at 0.

    Raises:
        ValueError: no such schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule = {schedule!r}: allowed: {', '.join(SCHEDULES)}")
    warmup = round(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    gone = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * gone))
    return 1.0 - gone if schedule == "linear" else 1.0
