"""The tokenizer of a recipe's model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_of(model: str) -> PreTrainedTokenizerBase:
    """From the model's folder, downloaded where it has to be. Raises UserError as `raylora.models.resolve`."""
    from transformers import AutoTokenizer

    from raylora.models import resolve

    return AutoTokenizer.from_pretrained(resolve(model, quiet=True))
