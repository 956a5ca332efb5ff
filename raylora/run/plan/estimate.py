"""A model of costs without training: from the model's configuration and the speed of this machine's arithmetic."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.run.plan.cost import CostModel
from raylora.run.plan.memory import GB, QUANTIZED_BYTES, Shape, activation_gb
from trainables.heads import LANGUAGE, Head

if TYPE_CHECKING:
    import torch

# Of the speed of a plain matrix product, what training and generating come to.
TRAINING, READING = 0.5, 0.6
# Multiply-adds per weight and token: forward, the gradient of the activations, and some of the forward once more.
PASSES = 2.4
# Rows that are scored at once.
SCORED_TOGETHER = 16
PROCESS_GB = 0.6


def estimate(
    model_folder: str | Path,
    *,
    tokens_per_row: float,
    new_tokens: int,
    threads: int = 0,
    dtype: str = "auto",
    placement: str | tuple[str, ...] = "all-linear",
    head: Head = LANGUAGE,
    recompute: bool = False,
    quantization: str = "none",
) -> CostModel:
    """What training and scoring will cost about. Imports torch and multiplies matrices for a moment; trains nothing.

    Args:
        tokens_per_row: mean length of a train row.
        new_tokens: longest answer that is generated to score a row; 0 where none is.
        head: what the model answers with.
        recompute: whether blocks are computed again in the backward pass (gradient checkpointing).
        quantization: of the base.
        threads: of torch; 0 for its default.
    """
    import torch

    from trainables.memory import available_bytes
    from trainables.session import pick_device, pick_dtype

    device = pick_device("auto")
    kind = pick_dtype(dtype, device)
    shape = model_shape(model_folder, placement, torch.empty(0, dtype=kind).element_size(), head, quantization)
    speed, bandwidth = _speed(device, kind, threads)
    token_s = (PASSES + recompute) * 2 * shape.parameters / (TRAINING * speed)
    # An answer's tokens come one after the other, and each reads all weights, for all rows that are scored together.
    reading = shape.base_bytes / (READING * bandwidth)
    generated = new_tokens * max(reading / SCORED_TOGETHER, 2 * shape.parameters / speed)
    return CostModel(
        shape,
        tokens_per_row,
        fixed_s=0.02,
        token_s=token_s,
        rank_s=0.0,
        rank_token_s=token_s * 2 * shape.adapter_per_rank / shape.parameters,
        evaluation_row_s=generated + tokens_per_row * 2 * shape.parameters / (TRAINING * speed),
        attach_s=1.0,
        resident_gb=shape.base_bytes / GB + PROCESS_GB,
        activation_token_gb=activation_gb(shape, recompute),
        available_gb=available_bytes(device) / GB,
        measured=False,
    )


def model_shape(
    model_folder: str | Path,
    placement: str | tuple[str, ...],
    weight_bytes: int,
    head: Head = LANGUAGE,
    quantization: str = "none",
) -> Shape:
    """The shape of a model from its configuration, without its weights."""
    return shape_of(head.empty(model_folder), placement, weight_bytes, quantization)


def shape_of(model: Any, placement: str | tuple[str, ...], weight_bytes: int, quantization: str = "none") -> Shape:
    """The shape of a transformers model that is not quantised, as it will be with `quantization`."""
    from trainables.compiling import blocks
    from trainables.variants.core.matrices import find_matrices, select_matrices

    config = model.config
    heads, in_all = int(config.num_attention_heads), sum(p.numel() for p in model.parameters())
    kept = [] if quantization == "none" else find_matrices(model)
    return Shape(
        parameters=in_all,
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        vocabulary=int(config.vocab_size),
        adapter_per_rank=sum(matrix.rows + matrix.columns for matrix in select_matrices(model, placement)),
        weight_bytes=weight_bytes,
        queries=heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        heads=heads,
        feed_forward=int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
        quantized=sum(matrix.rows * matrix.columns for matrix in kept),
        quantized_bytes=QUANTIZED_BYTES.get(quantization, 0.0),
        outside=in_all - sum(p.numel() for block in blocks(model) for p in block.parameters()),
    )


def _speed(device: torch.device, dtype: torch.dtype, threads: int) -> tuple[float, float]:
    """Operations per second of a matrix product, and bytes per second of a copy: the best of a few."""
    import torch

    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        side = 4096 if device.type == "cuda" else 512
        a = torch.randn(side, side, device=device, dtype=dtype)
        long = torch.zeros(2**24, device=device, dtype=torch.float32)
        product = min(_seconds(lambda: a @ a, device) for _ in range(5))
        copy = min(_seconds(long.clone, device) for _ in range(3))
        return 2 * side**3 / product, 2 * long.numel() * 4 / copy
    finally:
        torch.set_num_threads(before)


def _seconds(work: object, device: torch.device) -> float:
    import torch

    started = time.perf_counter()
    work()  # type: ignore[operator]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(1e-9, time.perf_counter() - started)
