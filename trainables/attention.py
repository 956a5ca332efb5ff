"""Which implementation of attention a model is loaded with: the names of the spec, and what this machine has."""

from __future__ import annotations

import importlib.util

import torch

# The spec's names -> transformers'.
_NAMES = {"sdpa": "sdpa", "flash": "flash_attention_2", "eager": "eager"}
# Compute capability from which FlashAttention 2 has kernels.
_AMPERE = (8, 0)


def why_no_flash(device: torch.device, dtype: torch.dtype) -> str | None:
    """What FlashAttention 2 lacks here, in words; None where it runs."""
    if device.type != "cuda":
        return "it needs a GPU"
    if torch.cuda.get_device_capability(device) < _AMPERE:
        return f"it needs a GPU of compute capability {'.'.join(map(str, _AMPERE))} or later"
    if importlib.util.find_spec("flash_attn") is None:
        return "it is not installed; pip install flash-attn"
    if dtype not in (torch.bfloat16, torch.float16):
        return "it computes in 16 bits alone; set dtype to bfloat16"
    return None


def pick_attention(attention: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """transformers' name of the implementation; None to leave the choice to it (SDPA where a model has it, else eager).

    Args:
        attention: `sdpa`, `flash`, `eager`, or `auto`: FlashAttention 2 where it runs.

    Raises:
        ValueError: `flash` where it does not run.
    """
    if attention not in ("auto", "flash"):
        return _NAMES[attention]
    why = why_no_flash(device, dtype)
    if why is None:
        return _NAMES["flash"]
    if attention == "flash":
        raise ValueError(f"train.attention = 'flash': {why}; or choose auto, sdpa or eager")
    return None
