"""Hidden state of a frozen language model at a learnable token that follows a prompt, for many prompts at once.

A prompt is `[prefix, the same for all] [values of one configuration] [learnable token]`. In a causal model the keys and
values of the first two parts depend neither on the token nor on other prompts, so

1. the prefix is read once;
2. the values are read once, as a tree in which prompts share their beginnings (`tree.PromptTree`): a `Reading`;
3. the token is one more position behind each prompt; gradients reach it through this position alone.

With explicit positions and masks (`attention.py`) these are the numbers of whole prompts, to rounding. Models for which
they are not (bidirectional encoders, windows shorter than the prompt, attention of another form) are told apart, by
their configuration and by comparing one prompt at the start; they run whole prompts (`Whole`), a great deal slower.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from .cache import DiskCache
from .model import FrozenModel, Progress
from .shared import Reading
from .whole import Whole

logger = logging.getLogger(__name__)


class PromptReader(FrozenModel):
    """A frozen language model that reads prompts: together where it allows it, else each from its first token."""

    def read(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        kv_bytes: int = 1 << 31,
        cache: DiskCache | None = None,
        progress: Progress | None = None,
    ) -> Reading | Whole:
        """Reads prompts (token ids behind the prefix).

        Args:
            kv_bytes: most memory for keys and values; what does not fit is read anew whenever the token runs.
            cache: where keys and values are kept on disk between processes.
            progress: called with the prompts read and all prompts.
        """
        if not self.shared:
            return Whole(self, prompts)
        return Reading(self, prompts, kv_bytes, cache, progress)

    def check(self, prompt: Sequence[int]) -> float:
        """Compares one prompt with the model's own way; switches sharing off when they differ.

        Returns:
            The largest difference relative to the largest activation.
        """
        if not self.shared:
            return 0.0
        token = self.initial_token()
        with torch.no_grad():
            whole = Whole(self, [prompt]).run(token)
            fast = Reading(self, [prompt]).run(token)
        error = float((whole - fast).abs().max() / whole.abs().max().clamp_min(1e-12))
        # Rounding in bfloat16 is about 1e-2 through a deep model; a wrong mask or position is of order 1.
        if not error < (1e-3 if self.dtype == torch.float32 else 0.15):
            logger.warning("shared prefix differs from whole prompts by %.3g; running whole prompts (slow)", error)
            self.shared = False
        return error
