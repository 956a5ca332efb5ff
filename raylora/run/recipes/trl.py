"""TRL: SFTTrainer over tokenised rows."""

from __future__ import annotations

from pathlib import Path

from raylora.run.recipes.core.base import Toolkit, bits_settings, lora_settings, trainer_settings, write_yaml
from raylora.run.recipes.core.notes import schedule_notes
from raylora.run.recipes.core.recipe import Recipe
from raylora.run.recipes.core.rows import Example, write_tokens
from raylora.run.recipes.core.scripts import copy_script


class Trl(Toolkit):
    """`train.py` gives `recipe.yaml` to `SFTConfig` and `LoraConfig`; `train.jsonl` has `input_ids` and `labels`."""

    name = "trl"
    requirement = "trl==1.16.0"
    command = "python train.py"

    def write(self, recipe: Recipe, examples: list[Example], folder: Path) -> list[str]:
        training = {
            **trainer_settings(recipe),
            "max_length": recipe.max_length,
            "packing": False,
            "train_sampling_strategy": "sequential",
            "bf16": False,
            "model_init_kwargs": {"dtype": recipe.dtype},
        }
        settings = {
            "model": recipe.model,
            "quantization": bits_settings(recipe),
            "lora": lora_settings(recipe),
            "training": training,
        }
        write_yaml(folder, settings, self.command)
        write_tokens(examples, folder / "train.jsonl")
        copy_script("trl_sft", folder)
        notes = schedule_notes(recipe)
        if recipe.quantization != "none":
            notes.append("Over a quantised base its adapter is in bf16; here it was in float32.")
        return notes
