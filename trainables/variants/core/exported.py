"""What a trained adapter becomes outside this project: plain LoRA, a folder, merged weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from trainables.variants.core.export import (
    merge_plain_lora,
    merge_through_folder,
    merge_tuned_weights,
    save_plain_lora,
    save_tuned_weights,
)
from trainables.variants.core.plain import PlainLora


class Exported(ABC):
    """The results of an attachment; a part of `Variant`.

    Class attributes:
        exports_lora: whether `to_lora` gives a plain LoRA.
        saves: what `save_adapter` writes: "peft", a folder that PEFT reads, or "merged", the tuned matrices.
    """

    name: ClassVar[str]
    exports_lora: ClassVar[bool] = True
    saves: ClassVar[str] = "peft"

    @property
    @abstractmethod
    def base(self) -> nn.Module:
        """The base model, with the adapter on it."""

    def to_lora(self) -> PlainLora | None:
        """The adapter as plain LoRA against the original weights, or None where there is no such thing."""
        return None

    def tuned_weights(self) -> dict[str, torch.Tensor]:
        """The adapted matrices with the update in them, module name -> `(m, n)`, fp32 on the CPU.

        What a variant without plain LoRA and without a PEFT form (`saves` is "merged") is saved as.
        """
        raise NotImplementedError

    def save_adapter(self, folder: Path, base_model: str) -> Path:
        """Writes a folder that `exported_adapter` and `merge_folder` read, and PEFT unless `saves` is "merged".

        `PeftModel.from_pretrained(original_base, folder)` then gives the same outputs.

        Args:
            folder: made if absent.
            base_model: what the folder names as its base (`base_model_name_or_path`).
        """
        plain = self.to_lora()
        if plain is None:
            return save_tuned_weights(self.tuned_weights(), self.name, folder, base_model)
        return save_plain_lora(plain, folder, base_model, model=self.base)

    def merge_into(self, model: nn.Module) -> nn.Module:
        """Adds what was learned to `model`, another copy of the original base, in place, and returns it.

        Sums are fp32 and rounded once to the base's type.
        """
        plain = self.to_lora()
        if plain is not None:
            return merge_plain_lora(model, plain)
        if self.saves == "merged":
            return merge_tuned_weights(model, self.tuned_weights())
        return merge_through_folder(model, lambda folder: self.save_adapter(folder, ""))
