"""How large a model is, read from its config alone: no weights, no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.errors import UserError

# What is appended to a family's name in `model_type`: qwen3_vl_moe, gemma3_text, deepseek_v3.
_SUFFIX = re.compile(r"_(vl|moe|text|v\d+)(_.*)?$")


@dataclass(frozen=True)
class Size:
    """Of a model.

    Attributes:
        family: its `model_type` without what tells the members of a family apart.
        parameters: all of them. active: those that a token meets, fewer in a mixture of experts.
        narrowest: the smallest side of its weight matrices: no larger rank is of use.
    """

    family: str
    parameters: float
    active: float
    narrowest: int


def size_of(name: str) -> Size:
    """The size of a model: a folder with a config.json, an alias, or a hub id, of which the config alone is fetched.

    Raises:
        UserError: no such model, or a config that does not say how large it is.
    """
    file = _config_file(name)
    try:
        config = json.loads(file.read_text())
        config = {**config, **config.get("text_config", {})}
        return size_from(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError.at(
            "--model", f"{name!r}: {file} does not say how large the model is ({error}); give another", value=name
        ) from None


def _config_file(name: str) -> Path:
    from raylora.models import ALIASES, resolve

    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder / "config.json"
    if name in ALIASES or folder.is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return resolve(name, quiet=True) / "config.json"
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json"))
    except Exception as error:  # the hub client raises its own, httpx's and the file system's errors
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError.at(
            "--model", f"{name!r}: the hub does not give its config: {said}; check name and network", value=name
        ) from None


def size_from(config: Mapping[str, Any]) -> Size:
    """The size that a config describes: embeddings, attention and feed-forward of a decoder.

    Biases and norms are left out: less than a hundredth.

    Raises:
        KeyError: the config has no width, depth or vocabulary under a usual name.
    """
    hidden = _first(config, "hidden_size", "n_embd", "d_model")
    layers = _first(config, "num_hidden_layers", "n_layer", "num_layers")
    vocabulary = _first(config, "vocab_size")
    attention, narrowest = _attention(config, hidden)
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings", True) else 2)
    dense, inner = _feed_forward(config, hidden)
    experts = config.get("num_experts") or config.get("num_local_experts") or config.get("n_routed_experts") or 0
    total = active = layers * attention + embeddings
    if experts:
        each = 3 * hidden * (config.get("moe_intermediate_size") or inner)
        first = min(config.get("first_k_dense_replace") or 0, layers)
        shared = config.get("n_shared_experts") or 0
        used = config.get("num_experts_per_tok") or config.get("experts_per_token") or 1
        total += first * dense + (layers - first) * (experts + shared) * each
        active += first * dense + (layers - first) * (used + shared) * each
    else:
        total += layers * dense
        active += layers * dense
    family = _SUFFIX.sub("", str(config.get("model_type", "unknown")))
    return Size(family, float(total), float(active), int(min(narrowest, hidden, inner)))


def _attention(config: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """Weights of a layer's attention, and the smallest side of its matrices."""
    heads = _first(config, "num_attention_heads", "n_head")
    if config.get("kv_lora_rank"):  # multi-head latent attention
        latent, rotary = config["kv_lora_rank"], config["qk_rope_head_dim"]
        plain, value = config["qk_nope_head_dim"], config["v_head_dim"]
        query = config.get("q_lora_rank") or 0
        asked = heads * (plain + rotary)
        weights = (hidden + asked) * query if query else hidden * asked
        weights += hidden * (latent + rotary) + latent * heads * (plain + value) + heads * value * hidden
        return weights, min(latent, query or latent)
    size = config.get("head_dim") or hidden // heads
    pairs = config.get("num_key_value_heads") or heads
    return 2 * hidden * size * (heads + pairs), size * pairs


def _feed_forward(config: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """Weights of a layer's feed-forward, and its inner width."""
    inner = config.get("intermediate_size") or config.get("n_inner") or 4 * hidden
    gated = "n_embd" not in config and config.get("model_type") not in ("gpt_neox", "opt", "phi")
    return (3 if gated else 2) * hidden * inner, inner


def _first(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if config.get(name):
            return int(config[name])
    raise KeyError(f"no {' or '.join(names)}")
