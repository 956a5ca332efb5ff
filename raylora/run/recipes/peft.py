"""PEFT with transformers' Trainer, over tokenised rows."""

from __future__ import annotations

from pathlib import Path

from raylora.run.recipes.core.base import Toolkit, bits_settings, lora_settings, trainer_settings, write_yaml
from raylora.run.recipes.core.notes import schedule_notes
from raylora.run.recipes.core.recipe import Recipe
from raylora.run.recipes.core.rows import Example, write_tokens
from raylora.run.recipes.core.scripts import copy_script


class Peft(Toolkit):
    """`train.py` gives `recipe.yaml` to `LoraConfig` and `TrainingArguments`."""

    name = "peft"
    requirement = "peft==0.21.2"
    command = "python train.py"
    variants = Toolkit.variants | {"lora_plus"}

    def write(self, recipe: Recipe, examples: list[Example], folder: Path) -> list[str]:
        settings = {
            "model": recipe.model,
            "dtype": recipe.dtype,
            "quantization": bits_settings(recipe),
            "lora": lora_settings(recipe),
            "loraplus_lr_ratio": recipe.rate_ratio,
            "training": {**trainer_settings(recipe), "train_sampling_strategy": "sequential", "bf16": False},
        }
        write_yaml(folder, settings, self.command)
        write_tokens(examples, folder / "train.jsonl")
        copy_script("peft_trainer", folder)
        return schedule_notes(recipe)
