"""What the training side needs from outside, as types.

`trainables` imports neither `raylora` nor `searchers`; whoever calls it hands in objects of these shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Row = Mapping[str, Any]
"""One tokenised example: `prompt_ids` and `response_ids` (token ids in lists or arrays, the response ends with the
end-of-sequence token) and whatever the scorer reads (`response`, `answer`, `metadata`)."""


@runtime_checkable
class Scorer(Protocol):
    """Turns generated text into a score per row. Must pickle: it travels to the actors."""

    @property
    def metric(self) -> str: ...

    @property
    def mode(self) -> str: ...

    @property
    def worst(self) -> float: ...

    @property
    def max_new_tokens(self) -> int: ...

    def score(self, completions: Sequence[str], rows: Sequence[Row]) -> list[float]: ...


@dataclass(frozen=True)
class TrainSettings:
    """How one configuration is trained; the same for every trial of a search.

    Args:
        samples: Budget of one trial, counted in training samples (each visit of a row counts).
        reports: Validation reports per trial, evenly spaced over the budget; the last one is at its end.
        micro_batch_tokens: Padded tokens that go through the model at once. A larger global batch is
            accumulated from micro-batches, so it fits any device.
        warmup_ratio: Share of the optimizer steps over which the rate rises linearly.
        max_grad_norm: Gradients are clipped to this norm; 0 leaves them alone.
        match_parameters: `lora` trains each variant at the rank where it has about as many parameters as LoRA
            at the configuration's rank; None at that rank itself.
        checkpoint_every_s: Seconds between checkpoints within a trial.
    """

    samples: int
    reports: int = 1
    micro_batch_tokens: int = 4096
    weight_decay: float = 0.0
    warmup_ratio: float = 0.03
    max_grad_norm: float = 1.0
    placement: str | tuple[str, ...] = "all-linear"
    match_parameters: str | None = None
    seed: int = 0
    checkpoint_every_s: float = 30.0


@dataclass(frozen=True)
class TrialSetup:
    """Everything that a host (or a Ray Train worker) needs to run trials, except the configuration.

    Args:
        model_folder: Local folder of the base model, or any name that `resolve_model` understands.
        resolve_model: Called with `model_folder` on the node that needs it; None takes the name as a folder.
        dtype: `auto`, `bfloat16` or `float32`. `auto` takes bf16 on CUDA and on CPUs with AMX.
        device: `auto`, `cpu` or `cuda`.
        threads: Torch threads of the process; 0 leaves torch's default.
        train: `Rows` to train on (the proxy subset), or object references of Arrow tables.
        validation: `Rows` that score a trial, or object references of Arrow tables.
        actors: Handles of the actors that variants declare, by variant.
        run_dir: Where `trials.jsonl` and `checkpoints/` live. Shared storage on a cluster.
    """

    model_folder: str
    scorer: Scorer
    settings: TrainSettings
    train: Sequence[Any]
    validation: Sequence[Any]
    run_dir: str
    resolve_model: Callable[[str], str | Path] | None = None
    dtype: str = "auto"
    device: str = "auto"
    threads: int = 0
    actors: Mapping[str, Any] = field(default_factory=dict)
