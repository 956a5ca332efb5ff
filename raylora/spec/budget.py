"""The time that a user will wait, as text: `20m`, `1h30m`, `6h`, `100gpuh`."""

from __future__ import annotations

import math
import re

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
ALLOWED = "a time with its unit (s, m, h, d) or hours of GPUs, such as 20m, 1h30m, 6h, 100gpuh"
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_GPU_HOURS = re.compile(r"(\d+(?:\.\d+)?)\s*gpuh")


def budget_seconds(text: str, gpus: float | None = 0.0) -> float:
    """Seconds to wait.

    Args:
        gpus: that are used side by side: hours of GPUs are shared among them. None: their number will change.

    Raises:
        ValueError: no such time, zero, or hours of GPUs where none is used or nobody knows how many.
    """
    told = text.strip().lower().replace(" ", "")
    of_gpus = _GPU_HOURS.fullmatch(told)
    if of_gpus:
        if gpus is None:
            raise ValueError(
                "resources.hosts = 'auto' uses what is there; allowed: a number of hosts, or a time such as 6h"
            )
        if gpus <= 0:
            raise ValueError("no GPU is used; allowed: resources.gpus_per_host above 0, or a time such as 6h")
        seconds = float(of_gpus[1]) * SECONDS["h"] / gpus
    else:
        seconds = _seconds(told)
    if not 0 < seconds < math.inf:
        raise ValueError(f"allowed: {ALLOWED}")
    return seconds


def is_budget(text: str) -> bool:
    """Whether the text is a budget, wherever it will be spent."""
    try:
        budget_seconds(text, gpus=1.0)
    except ValueError:
        return False
    return True


def _seconds(text: str) -> float:
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"allowed: {ALLOWED}")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def duration(seconds: float) -> str:
    """A time for people: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours} h" + (f" {minutes} min" if minutes else "")
