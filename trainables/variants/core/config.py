"""The values that an attachment is made from: hyperparameters, and what the run offers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Batches = Sequence[Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class AdapterConfig:
    """Hyperparameters of one attachment.

    Attributes:
        rank: r >= 1.
        alpha: > 0; the scale s is alpha / rank for most variants.
        dropout: probability in [0, 1) on the adapter's input. Drawn from PyTorch's global generator at each
            forward.
        learning_rate: > 0.
        weight_decay: >= 0, decoupled (AdamW).
        placement: `"all-linear"` (every linear matrix but the language-model head) or names of matrices; see
            `select_matrices`.
        seed: of everything drawn at attachment.
        steps: optimizer steps that the run will take, >= 1; only variants with a schedule of their own look.
        dtype: of what is trained.
        extra: the variant's own options; unknown ones are refused at `attach`.

    Raises:
        ValueError: a value is outside its range.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    placement: str | tuple[str, ...] = "all-linear"
    seed: int = 0
    steps: int = 1000
    dtype: torch.dtype = torch.float32
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or self.rank != int(self.rank) or self.rank < 1:
            raise ValueError(f"rank is {self.rank!r}: use a whole number of at least 1")
        object.__setattr__(self, "rank", int(self.rank))
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha is {self.alpha!r}: use a number above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}: use a number from 0 up to, not including, 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate!r}: use a number above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay is {self.weight_decay!r}: use 0 or a number above 0")
        if isinstance(self.steps, bool) or self.steps != int(self.steps) or self.steps < 1:
            raise ValueError(f"steps is {self.steps!r}: use a whole number of at least 1")
        if not isinstance(self.placement, str):
            object.__setattr__(self, "placement", tuple(self.placement))


@dataclass(frozen=True)
class Surroundings:
    """What a run offers to a variant beside the model; each part may be absent.

    Attributes:
        validation: keyword arguments for forward calls with `labels` (-100 outside the completion), from
            `validation_rows` rows of train that are kept out of training.
        actor: handle of the actor that the variant declared, shared by all its trials of a search.
        trial: name of the trial, fit for a file name.
        log_folder: where the variant may write what is worth looking at afterwards.
        shared: whether the base computes for others too while this adapter is on it: its weights are not rewritten, and
            what a variant would take out of them it tells by `Variant.lora_part`.
    """

    validation: Batches = ()
    actor: Any = None
    trial: str = ""
    log_folder: Path | None = None
    shared: bool = False
