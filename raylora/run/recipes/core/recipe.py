"""A found recipe with everything that training it elsewhere needs, in the terms that toolkits share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how.

    Attributes:
        model: hub id, or a folder of this machine.
        placement: `all-linear`, or names of matrix types.
        modules: the matrix types that placement means in this model.
        extra: the variant's own options.
        batch_size: rows per optimizer step: `micro_batch` x `accumulation`.
        steps: optimizer steps.
        epochs: passes over the rows.
        warmup_steps: of them, with a rate that rises.
        schedule: of the rate after that: `cosine` or `linear` to 0, or `constant`.
        max_length: longest row, in tokens.
        dtype: of the base weights: `bfloat16` or `float32`.
        quantization: of the base: `none`, `nf4` with double quantisation, or `int8`.
        turns: `all` assistant turns are trained on, or the `last`.
    """

    model: str
    variant: str
    rank: int
    alpha: float | int
    dropout: float
    placement: str | Sequence[str]
    modules: Sequence[str]
    extra: Mapping[str, Any]
    learning_rate: float
    batch_size: int
    micro_batch: int
    steps: int
    epochs: float
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    seed: int
    max_length: int
    dtype: str
    turns: str
    quantization: str = "none"
    schedule: str = "cosine"

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimizer step."""
        return self.batch_size // self.micro_batch

    @property
    def scheduler(self) -> str:
        """transformers' name of the schedule; its `constant` has no warm-up."""
        return "constant_with_warmup" if self.schedule == "constant" else self.schedule

    @property
    def pissa(self) -> str | None:
        """PEFT's name of the start, for PiSSA."""
        return f"pissa_niter_{self.extra.get('niter', 4)}" if self.variant == "pissa" else None

    @property
    def rate_ratio(self) -> float | None:
        """B's rate over A's, for LoRA+."""
        return float(self.extra.get("ratio", 16)) if self.variant == "lora_plus" else None


def micro_batch(batch_size: int, longest: int, tokens: int) -> int:
    """Rows per forward pass: the largest divisor of the batch whose padded rows fit in that many tokens; at least 1."""
    fits = max(1, tokens // max(1, longest))
    return max(size for size in range(1, batch_size + 1) if batch_size % size == 0 and size <= fits)
