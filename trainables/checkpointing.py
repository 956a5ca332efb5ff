"""Gradient checkpointing: blocks keep their inputs alone and compute the rest again in the backward pass.

Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

Around = Callable[[], tuple[AbstractContextManager[object], AbstractContextManager[object]]]


def recompute_blocks(model: Any, around: Around | None = None) -> None:
    """Has a transformers model in training mode compute its blocks again in the backward pass.

    What is drawn from PyTorch's global generators is drawn again as it was. `Snapshot.restore` takes it back.

    Args:
        around: called for each block; what to be in while it runs for the first time, and while it runs again.

    Raises:
        ValueError: the model has no blocks that can be computed again.
    """
    told: dict[str, object] = {"use_reentrant": False}
    if around is not None:
        told["context_fn"] = around
    try:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=told)
    except (AttributeError, ValueError):
        raise ValueError(
            f"train.gradient_checkpointing: {type(model).__name__} cannot compute its blocks again; set it to false"
        ) from None
    # For the other kind of checkpoints: it would have gradients flow down to the embedding.
    model.disable_input_require_grads()
