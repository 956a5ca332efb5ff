"""Whether other programs than PEFT can have an adapter as it is, and the nearest that they can.

vLLM and llama.cpp know plain LoRA, with one alpha and, for vLLM, one rank for the whole adapter. What says otherwise is
read over in silence by some of their releases, so it is looked at here. The sources are `vllm/lora/peft_helper.py` and
llama.cpp's `convert_lora_to_gguf.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainables.variants.core.tuned import tuned_by

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# The ranks that vLLM can make room for.
RANKS_OF_VLLM = (1, 8, 16, 32, 64, 128, 256, 320, 512)
LARGEST_OF_VLLM = RANKS_OF_VLLM[-1]
PROGRAMS = {"vllm": "vLLM", "llamacpp": "llama.cpp"}
# Fields of a LoRA's configuration that mean something else than B A, and what that is called.
_MORE = {
    "use_dora": "DoRA",
    "modules_to_save": "modules trained whole",
    "lora_bias": "biases",
    "fan_in_fan_out": "transposed matrices",
    "target_parameters": "parameters of experts",
    "trainable_token_indices": "tokens trained one by one",
    "layer_replication": "replicated layers",
    "alora_invocation_tokens": "activation by tokens",
    "use_bdlora": "block-diagonal matrices",
    "use_qalora": "QALoRA",
}
_UNEVEN = {"rank_pattern": "ranks that differ", "alpha_pattern": "alphas that differ"}


@dataclass(frozen=True)
class Look:
    """What an adapter is to a program.

    Attributes:
        needs: nothing; to be made `uniform`, which changes its form and not what it computes; or to be merged.
        why: what of it the program does not know; "" where it needs nothing.
    """

    needs: Literal["", "uniform", "merge"]
    why: str = ""


def look_at(adapter: Path, program: str) -> Look:
    """Whether a program of `PROGRAMS` can have the adapter of a folder."""
    whole = tuned_by(adapter)
    if whole is not None:
        return Look("merge", f"{whole} leaves whole matrices, which are no adapter")
    told = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    name = PROGRAMS[program]
    kind = str(told.get("peft_type", "")).upper()
    if kind != "LORA":
        return Look("merge", f"{name} does not know adapters of the type {kind}")
    more = [words for field, words in _MORE.items() if told.get(field)]
    ranks = [told.get("r", 0), *(told.get("rank_pattern") or {}).values()]
    if program == "vllm" and max(ranks) > LARGEST_OF_VLLM:
        more.append(f"ranks above {LARGEST_OF_VLLM}")
    if told.get("bias", "none") != "none":
        more.append("biases")
    if more:
        return Look("merge", f"{name} does not know {' and '.join(more)} in an adapter")
    uneven = [words for field, words in _UNEVEN.items() if told.get(field)]
    if program == "llamacpp" and told.get("use_rslora"):
        uneven.append("rsLoRA's scale")
    return Look("uniform", f"{name} does not know {' and '.join(uneven)}") if uneven else Look("")


def vllm_room(rank: int) -> int:
    """The least room of vLLM's that an adapter of a rank fits into; `LARGEST_OF_VLLM` where none does."""
    return next((room for room in RANKS_OF_VLLM if room >= rank), LARGEST_OF_VLLM)


def write_uniform(adapter: Path, target: Path) -> Path:
    """A LoRA with one rank and one alpha, equal to it, that computes what the adapter does; returns `target`.

    The scale of each matrix goes into its B, and A and B of a lesser rank get rows and columns of zeros.

    Args:
        adapter: a folder with a LoRA of PEFT. target: a new or empty folder.
    """
    from safetensors.torch import load_file, save_file

    told = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    tensors = load_file(adapter / WEIGHTS)
    rank = max(_rank(name, tensor) for name, tensor in tensors.items())
    even = {name: _even(name, tensor, rank, told) for name, tensor in tensors.items()}
    target.mkdir(parents=True, exist_ok=True)
    save_file(even, target / WEIGHTS, metadata={"format": "pt"})
    plain = {"r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    (target / CONFIG).write_text(json.dumps({**told, **plain}, indent=2, sort_keys=True) + "\n")
    return target


def _is_a(name: str) -> bool:
    return ".lora_A." in name or ".lora_embedding_A" in name


def _rank(name: str, tensor: Tensor) -> int:
    """A is `(r, n)`, B `(m, r)`; of an embedding, too."""
    return int(tensor.shape[0] if _is_a(name) else tensor.shape[1])


def _even(name: str, tensor: Tensor, rank: int, told: Mapping[str, Any]) -> Tensor:
    from torch.nn import functional as F

    own = _rank(name, tensor)
    if _is_a(name):
        return F.pad(tensor, (0, 0, 0, rank - own)).contiguous()
    scaled = tensor.float() * _scale(name, own, told)
    return F.pad(scaled, (0, rank - own)).to(tensor.dtype).contiguous()


def _scale(name: str, rank: int, told: Mapping[str, Any]) -> float:
    """Of one matrix, as PEFT has it: alpha / r, or alpha / sqrt(r) of rsLoRA."""
    from peft.utils.other import get_pattern_key

    module = name.split("base_model.model.", 1)[-1].partition(".lora_")[0]
    patterns = told.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(patterns.keys(), module), told["lora_alpha"])
    return float(alpha / (rank**0.5 if told.get("use_rslora") else rank))
