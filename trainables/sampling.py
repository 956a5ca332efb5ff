"""Which token comes next, and where an answer ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainables.protocols import Row, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Choose = Callable[[Tensor, Sequence[int], int], Tensor]
"""Logits `(n, vocabulary)`, which of all answers they are of `(n,)`, and how many tokens there are already, to the next
tokens `(n, 1)`."""

# Tokens that are read again to find a stop string; one token is a character at least.
TAIL = 64


def chooser(sampling: Sampling, rows: Sequence[Row], device: torch.device | str) -> Choose:
    """The most likely token, or draws: the `n` answers of each row stand next to each other."""
    if sampling.temperature == 0:
        return lambda logits, rows, step: logits.argmax(-1, keepdim=True)
    draws = np.stack([_draws(sampling, row, sample) for row in rows for sample in range(sampling.n)])
    uniform = torch.from_numpy(draws).to(device)

    def draw(logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        chances = (logits.float() / sampling.temperature).softmax(-1)
        ordered, tokens = chances.sort(dim=-1, descending=True, stable=True)
        up_to = ordered.cumsum(-1)
        # A token stays where those before it have less than top_p; the first always does.
        kept = torch.where(up_to - ordered < sampling.top_p, ordered, 0.0).cumsum(-1)
        wanted = uniform[list(rows), step, None] * kept[:, -1:]
        return tokens.gather(-1, (kept <= wanted).sum(-1, keepdim=True).clamp_max(tokens.shape[-1] - 1))

    return draw


def _draws(sampling: Sampling, row: Row, sample: int) -> np.ndarray:
    """Numbers in [0, 1) that are the row's own, `(max_new_tokens,)`."""
    prompt = np.asarray(row["prompt_ids"], dtype=np.int64)
    own = [sampling.seed, int(row.get("row") or 0), len(prompt), int(prompt.sum()), sample]
    return np.random.default_rng(own).random(sampling.max_new_tokens, dtype=np.float32)


def stopping(tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
    """Whether one of the stop strings stands in the last tokens of an answer; None where there are none."""
    if not stop:
        return None

    def ended(ids: Sequence[int]) -> bool:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        return any(one in text for one in stop)

    return ended


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    places = [place for one in stop if (place := text.find(one)) >= 0]
    return text[: min(places)] if places else text
