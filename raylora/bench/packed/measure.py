"""The whole measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylora.bench.packed.arms import Batch, Bench, open_model
from raylora.bench.packed.evaluation import compare_evaluation
from raylora.bench.packed.memory import compare_memory
from raylora.bench.packed.training import BARS, compare_training
from raylora.progress import Progress


def bench_packed(
    models: Sequence[str] = ("smollm2-135m",),
    *,
    packs: Sequence[int] = (8,),
    batches: Sequence[Batch] = tuple(BARS),
    variant: str = "lora",
    rank: int = 8,
    rounds: int = 6,
    evaluated: tuple[int, int] = (4, 48),
    memory: bool = True,
    device: str = "auto",
    dtype: str = "float32",
    profiles: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Trials per hour of several trials together and of the same ones one after the other.

    Both sides train the same configurations on the same rows, in turns of a few steps, so that a machine that slows
    down slows both. Together is `trainables.packed.pack`, one at a time is `trainables.session`: what runs use.

    Args:
        models: aliases, folders or hub ids; `random-1b` is a model of that size with random weights.
        packs: how many trials train together.
        rounds: turns of each side; the first one is not in the ratios.
        evaluated: adapters that are scored together, and rows of each; of the first model. (0, 0) for none.
        memory: whether peaks are measured, of the first model and the largest pack.
        device, dtype: as `trainables.session.load_model` takes them.
        profiles: folder for torch's profiles of a turn together, a file for each model, batch and pack.

    Returns:
        `about`; `training`, for each model, batch and pack `trials_per_hour` and `tokens_per_s` of both sides
        (`packed`, `alone`), `ratios` of the tokens per second, one a round, their median `speedup`, `cpu_speedup`
        by processor time, and the `bar` that is meant for it; `evaluation` and `memory`: see `compare_evaluation` and
        `compare_memory`.
    """
    import torch

    progress, told, more = Progress(quiet=quiet), [], {}
    for name in models:
        with tempfile.TemporaryDirectory() as scratch:
            base, tokenizer = open_model(name, dtype, device, quiet)
            bench = Bench(name, base, tokenizer, variant, rank, rounds, Path(scratch), progress)
            for batch in batches:
                for pack in packs:
                    progress.say(f"{name}: {pack} trials, steps of {batch} tokens")
                    told.append(compare_training(bench, pack, batch, profiles))
            if evaluated[0] and name == models[0]:
                progress.say(f"{name}: {evaluated[0]} adapters, {evaluated[1]} rows to score")
                more["evaluation"] = compare_evaluation(bench, *evaluated, rounds)
    about = {
        "device": torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": str(next(bench.base.parameters()).dtype).removeprefix("torch."),
        "variant": variant,
        "rank": rank,
        "rounds": rounds,
    }
    del base, bench
    if memory:
        progress.say(f"{models[0]}: memory")
        most = max(packs)
        more["memory"] = compare_memory(models[0], most, rank=rank, variant=variant, dtype=dtype, device=device)
    return {"about": about, "training": told, **more}
