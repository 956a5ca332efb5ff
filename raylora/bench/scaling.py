"""What gradient checkpointing, packed sequences and other ways to make a model fit cost and save, in one run."""

from __future__ import annotations

import gc
import random
from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any

from raylora.bench.variants import peak_bytes
from raylora.progress import Progress

# How a trial is trained beside `plain`: fields of `TrainSettings`.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "pack_sequences": {"pack_sequences": True},
    "both": {"gradient_checkpointing": True, "pack_sequences": True},
    "adapter_dtype: bfloat16": {"adapter_dtype": "bfloat16"},
}
STEPS = 2  # timed per turn, after one that is not


def bench_scaling(
    model: str,
    *,
    rows: int = 8,
    longest: int = 128,
    rank: int = 8,
    turns: int = 3,
    dtype: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains LoRA in each way on the same rows, in turns, so that a machine that slows down slows all of them.

    Args:
        model: alias, folder or hub id.
        rows: per step, in one micro-batch; their lengths are spread evenly from an eighth of `longest` up to it, and
            the last quarter of each is trained on.
        turns: of each way; medians are reported.

    Returns:
        `about`, and `ways`: of each `step_time` and `peak_memory` as ratios to plain (tensors above the base's, see
        `bench.variants.peak_bytes`), and `loss`, the largest relative difference from plain's losses.
    """
    import torch

    from raylora.models import resolve
    from trainables.protocols import TrainSettings
    from trainables.run import TrialRun
    from trainables.session import load_model

    progress = Progress(quiet=quiet)
    base, _ = load_model(resolve(model, quiet=quiet), dtype)
    device, kind = next(base.parameters()).device, next(base.parameters()).dtype
    train = _rows(rows, longest, int(base.config.vocab_size))
    knobs = {"variant": "lora", "rank": rank, "alpha_ratio": 2, "batch_size": rows, "learning_rate": 1e-4}

    def begin(name: str) -> TrialRun:
        settings = TrainSettings(samples=rows * 100, micro_batch_tokens=rows * longest, **WAYS[name])
        return TrialRun(base, knobs, train, settings, pad_id=0)

    def steps(name: str) -> tuple[list[float], float]:
        """Losses of the steps, and the mean seconds of all but the first."""
        run = begin(name)
        try:
            run.module.train()
            losses = [run.train_step()]
            run.metrics()
            losses += [run.train_step() for _ in range(STEPS)]
            if device.type == "cuda":
                torch.cuda.synchronize()
            return losses, run.metrics()["step_time_s"]
        finally:
            run.close()

    peaks: dict[str, float] = {}
    losses: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for name in WAYS:
        progress.say(f"memory: {name}")
        gc.collect()
        peaks[name] = peak_bytes(partial(steps, name), device, base)
    for turn in range(turns):
        for name in WAYS:
            progress.say(f"time: {name} (turn {turn + 1} of {turns})")
            losses[name], took = steps(name)
            seconds[name].append(took)
    plain = median(seconds["plain"])
    return {
        "about": {
            "model": model,
            "device": str(device),
            "dtype": str(kind).removeprefix("torch."),
            "rank": rank,
            "rows": rows,
            "longest": longest,
            "plain_step_s": plain,
            "plain_peak_mb": peaks["plain"] / 1e6,
        },
        "ways": {
            name: {
                "step_time": median(seconds[name]) / plain,
                "peak_memory": peaks[name] / peaks["plain"],
                "loss": max(
                    abs(one - other) / abs(other) for one, other in zip(losses[name], losses["plain"], strict=True)
                ),
            }
            for name in WAYS
        },
    }


def _rows(count: int, longest: int, vocabulary: int) -> list[Mapping[str, Any]]:
    """Random tokens, from an eighth of the longest row up to that."""
    draw = random.Random(0)
    found: list[Mapping[str, Any]] = []
    for place in range(count):
        length = max(4, round(longest * (1 / 8 + 7 / 8 * (place + 1) / count)))
        ids, cut = [draw.randrange(vocabulary) for _ in range(length)], length - length // 4
        found.append({"prompt_ids": ids[:cut], "response_ids": ids[cut:]})
    return found
