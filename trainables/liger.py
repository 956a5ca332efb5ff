"""Liger's Triton kernels for norms and gated feed-forwards, where there is a GPU and the package.

Hsu et al., Liger Kernel: Efficient Triton Kernels for LLM Training, arXiv 2410.10989.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch

Wanted = bool | Literal["auto"]


def why_no_liger(device: torch.device, model_type: str | None = None) -> str | None:
    """What the kernels lack here, in words; None where they run.

    Args:
        model_type: as transformers has it; None where it is not known yet.
    """
    if device.type != "cuda":
        return "it needs a GPU"
    if importlib.util.find_spec("liger_kernel") is None:
        return "it is not installed; pip install liger-kernel"
    if model_type is None:
        return None
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN

    return None if model_type in KNOWN else f"it has no kernels for {model_type}"


def apply_liger(model: Any, wanted: Wanted, device: torch.device) -> bool:
    """Patches a loaded transformers model; returns whether it did.

    Only what belongs to the model itself: the rotary embedding would be that of all models of the process. Its fused
    cross-entropy saves logits that are not made here: a trial computes those of trained tokens, outside the model.

    Args:
        wanted: `auto`: where it runs.

    Raises:
        ValueError: it is wanted where it does not run.
    """
    if wanted is False:
        return False
    why = why_no_liger(device, model.config.model_type)
    if why is not None:
        if wanted == "auto":
            return False
        raise ValueError(f"train.liger = true: {why}; or choose auto or false")
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=model, rope=False, cross_entropy=False, fused_linear_cross_entropy=False)
    return True
