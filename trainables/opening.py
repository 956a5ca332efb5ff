"""What many prompts begin with, read once: the system message of a chat template, worked examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

# Fewer tokens, or prompts, are not worth a pass of their own.
TOKENS, PROMPTS = 8, 4


@dataclass(frozen=True)
class Opening:
    """The first tokens of every prompt, as the model has read them.

    Attributes:
        layers: keys and values of each layer, `1 x heads x tokens x size`.
    """

    tokens: int
    layers: Sequence[tuple[Tensor, Tensor]]

    def go_on(self, model: nn.Module, inputs: dict[str, Tensor], last: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Reads what follows the opening in `n` prompts, padded on the left to `t` tokens (see `batching.pad_left`).

        Args:
            last: positions of the logits that are wanted, of the `t`.

        Returns:
            The model's output, whose cache holds opening and rest of each prompt side by side, behind the padding; and
            the inputs as if nothing had been read before, `n x (tokens + t)` but for `input_ids`.
        """
        count = len(inputs["input_ids"])
        cache: Any = DynamicCache()
        for place, (keys, values) in enumerate(self.layers):
            cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), place)
        rest = inputs["attention_mask"]
        mask = torch.cat([rest.new_ones(count, self.tokens), rest], dim=1)
        positions = inputs["position_ids"] + self.tokens
        out = model(
            input_ids=inputs["input_ids"],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=last,
        )
        columns = torch.arange(mask.shape[1], device=mask.device)
        padding = (rest == 0).sum(1, keepdim=True)  # n x 1
        # The opening stands before the padding: it is moved behind it.
        source = torch.where(columns < padding + self.tokens, (columns - padding).clamp_min(0), columns)
        for layer in out.past_key_values.layers:
            for name in ("keys", "values"):
                held = getattr(layer, name)
                order = source[:, None, :, None].expand(-1, held.shape[1], -1, held.shape[3])
                setattr(layer, name, held.gather(2, order))
        behind = (columns >= padding).to(mask.dtype)
        return out, {**inputs, "attention_mask": behind, "position_ids": positions}


def read_opening(
    model: nn.Module, prompts: Sequence[Sequence[int] | np.ndarray], device: torch.device | str
) -> Opening | None:
    """What all of the prompts begin with; None where that is too little, or the cache does not keep every token."""
    count = common_start(prompts) if len(prompts) >= PROMPTS else 0
    if count < TOKENS:
        return None
    ids = torch.from_numpy(np.array(prompts[0][:count], dtype=np.int64))[None].to(device)
    cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    if type(cache) is not DynamicCache or not all(type(layer) is DynamicLayer for layer in cache.layers):
        return None
    return Opening(count, [(layer.keys, layer.values) for layer in cache.layers])


def common_start(prompts: Sequence[Sequence[int] | np.ndarray]) -> int:
    """How many tokens all prompts begin with alike; of each at least one more follows."""
    first = np.asarray(prompts[0])
    count = min(map(len, prompts)) - 1
    for prompt in prompts[1:]:
        differ = np.flatnonzero(first[:count] != np.asarray(prompt[:count]))
        count = int(differ[0]) if len(differ) else count
    return max(0, count)
